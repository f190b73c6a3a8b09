"""What is far from the training inputs, by statistics of them: what each odd input gets, and how many good ones are taken for odd."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import REPO

from launcher.predict.guards import Nearness, fit

CIFAR, MNIST = REPO.parent / "shared" / "data" / "cifar10" / "plain_text", REPO.parent / "shared" / "data" / "mnist"


def _smooth(count: int, seed: int) -> torch.Tensor:
    """Waves with a little grain: neighbours are alike, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.linspace(0, 6, 16)
    phase, pace, height = (torch.rand(count, 3, 1, 1, generator=generator) for _ in range(3))
    waves = torch.sin(grid[:, None] * (0.5 + pace) + 6 * phase) + torch.cos(grid[None] * (0.5 + height))
    return waves + 0.05 * torch.randn(count, 3, 16, 16, generator=generator)


def test_what_is_unlike_training_is_told_and_what_is_like_it_is_not() -> None:
    nearness = Nearness(json.loads(json.dumps(fit(_smooth(200, seed) for seed in range(10)))))
    good = [share for share, _ in nearness.far(_smooth(1000, 99))]
    assert sum(share > 1 for share in good) <= 20
    odd = torch.stack((torch.zeros(3, 16, 16), torch.full((3, 16, 16), 3.0), torch.randn(3, 16, 16), torch.full((3, 16, 16), torch.nan)))
    found = nearness.far(odd)
    assert all(share > 1 for share, _ in found)
    assert all("far from the training inputs" in said for _, said in found)


def test_rows_of_a_table_by_what_goes_together() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(2000, 1, generator=generator)
    rows = torch.cat((first, first + 0.1 * torch.randn(2000, 1, generator=generator)), 1)
    nearness = Nearness(fit([rows]))
    near, apart, beyond = nearness.far(torch.tensor([[1.0, 1.0], [2.0, -2.0], [40.0, 40.0]]))
    assert near == (near[0], "")
    assert near[0] < 1 < min(apart[0], beyond[0])
    assert nearness.far(torch.zeros(1, 3))[0][1] == "it has another number of values than the training inputs had"


@pytest.mark.parametrize("batches", [[torch.zeros(5, 3)], [], [torch.zeros(100, 4, dtype=torch.int64)]], ids=["few", "none", "tokens"])
def test_what_no_statistics_can_be_made_of(batches: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="statistics"):
        fit(batches)


@pytest.mark.parametrize(
    "change", [{"kind": "else"}, {"spread": [0.0, 0.0]}, {"whitening": [[1.0]]}, {"steps": []}, {"limit": float("nan")}]
)
def test_statistics_that_are_none_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is for who opens the export
        Nearness(fit([torch.randn(100, 2)]) | change)


def _pictures(path: Path, column: str, count: int) -> torch.Tensor:
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    rows = pq.read_table(path, columns=[column]).slice(0, count).column(column).to_pylist()
    images = (Image.open(io.BytesIO(row["bytes"])).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR) for row in rows)
    return (torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).float() / 255 - 0.47) / 0.25


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_dir() or not MNIST.is_dir(), reason="CIFAR-10 and MNIST are not here")
def test_of_the_real_test_set_at_most_one_in_a_hundred_is_taken_for_odd() -> None:
    nearness = Nearness(fit(_pictures(next(CIFAR.glob("train*")), "img", 5000).split(1000)))
    test = _pictures(next(CIFAR.glob("test*")), "img", 10_000)
    assert sum(share > 1 for share, _ in nearness.far(test)) <= 100
    digits = _pictures(next(MNIST.rglob("*test*.parquet")), "image", 500)
    noise = (torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.47) / 0.25
    black = torch.full((1, 3, 32, 32), -0.47 / 0.25)
    for odd in (digits, noise, black):
        assert all(share > 1 for share, _ in nearness.far(odd))
