"""The task of numbers: its losses, and metrics that are the same however the split was shared out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from launcher.train.tasks.regression import Regression

SHARES = ((0, 1), (1, 14), (14, 14), (14, 40))
"""Of four ranks, of which one has nothing."""


def batch(numbers: int, centre: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """The model is the identity: what it finds is off by noise."""
    draw = np.random.default_rng(numbers)
    wanted = draw.normal(centre, 2, (40, numbers))
    return torch.from_numpy(wanted + draw.normal(0.1, 0.5, wanted.shape)), torch.from_numpy(wanted)


def merged(task: Regression, whole: tuple[torch.Tensor, torch.Tensor], model: Any = lambda x: x) -> dict[str, float]:
    total = task.metrics()
    for begin, end in SHARES:
        rank = task.metrics()
        for at in range(begin, end, 5):
            rank.update(model, (whole[0][at : min(end, at + 5)], whole[1][at : min(end, at + 5)]))
        total.merge(rank.state())
    return total.result()


@pytest.mark.parametrize("centre", [0.0, 1e7])
@pytest.mark.parametrize("numbers", [1, 3])
def test_metrics_of_unequal_shares_are_those_of_the_whole(numbers: int, centre: float) -> None:
    found, wanted = whole = batch(numbers, centre)
    off = (found - wanted).numpy()
    squares = (off**2).sum(0) / ((wanted - wanted.mean(0)) ** 2).sum(0).numpy()
    expected = {"mae": abs(off).mean(), "rmse": (off**2).mean() ** 0.5, "r2": (1 - squares).mean(), "samples": 40}
    assert merged(Regression(), whole) == pytest.approx({**expected, "loss": (off**2).mean()}, rel=1e-10)
    huber = torch.nn.functional.huber_loss(found, wanted, delta=0.3).item()
    assert merged(Regression(huber=0.3), whole) == pytest.approx({**expected, "loss": huber}, rel=1e-10)


def test_a_step_is_the_sum_over_all_numbers() -> None:
    found, wanted = batch(3)
    task = Regression()
    step = task.step(lambda x: x, (found, wanted))
    assert step.weight == 120
    told = task.train_metrics(float(step.loss), 120, [float(each) for each in step.statistics])
    assert told == pytest.approx(
        {"loss": told["rmse"] ** 2, "mae": (found - wanted).abs().mean().item(), "rmse": merged(task, (found, wanted))["rmse"]}
    )
    one = Regression().step(lambda x: x[:, :1], (found, wanted[:, 0]))
    assert one.weight == 40


def test_what_does_not_vary_is_found_or_not() -> None:
    same = torch.full((40, 1), 3.0)
    assert merged(Regression(), (same, same))["r2"] == 1
    assert merged(Regression(), (same + 1, same))["r2"] == 0


def test_another_count_than_is_wanted_and_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"the model gives \(3,\) .* there are \(2,\) to be found; type model\.out_features=2$"):
        Regression().step(lambda x: x, (torch.ones(4, 3), torch.ones(4, 2)))
    with pytest.raises(ValueError, match=r"^task\.huber=-1\.0 cannot be"):
        Regression(-1.0)
    with pytest.raises(ValueError, match="no rank has counted"):
        Regression().metrics().result()
