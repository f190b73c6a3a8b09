"""Tasks beside those that ship: several at once, and metrics that are merged from what each rank has seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from launcher.train.arithmetic import computing
from launcher.train.tasks.classification import Classification
from launcher.train.tasks.composite import Composite
from launcher.train.tasks.task import Model, Quiet, Step, Sums

CPU = torch.device("cpu")


class Size(Quiet):
    """The sum of all outputs, over how many there are."""

    def step(self, model: Model, batch: Any) -> Step:
        outputs = model(batch[0])
        return Step(outputs.sum(), torch.tensor(outputs.numel()))

    def train_metrics(self, loss: float, weight: float, statistics: Any) -> dict[str, float]:
        return {"mean": loss / weight}

    def metrics(self) -> Sums:
        return Sums(
            lambda model, batch: torch.tensor([model(batch[0]).sum(), len(batch[0])], dtype=torch.float64),
            lambda total: {"sum": float(total[0]), "samples": int(total[1])},
        )


class Counted(torch.nn.Linear):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x)


def batches(count: int = 3) -> list[Any]:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 5, generator=draw), torch.randint(0, 3, (4,), generator=draw)) for _ in range(count)]


def test_a_composite_is_the_sum_by_factors_over_the_first_weight_and_computes_once() -> None:
    model, (batch, *_) = Counted(5, 3), batches()
    label, size = Classification(), Size()
    step = Composite({"label": label, "size": size}, {"size": 0.5}).step(model, batch)
    assert model.calls == 1
    assert step.weight == 4
    torch.testing.assert_close(step.loss, label.step(model, batch).loss + 0.5 * size.step(model, batch).loss)


def test_what_each_task_says_of_itself_is_its_own() -> None:
    model, (batch, *_) = Counted(5, 3), batches()
    both = Composite({"label": Classification(), "size": Size()})
    step = both.step(model, batch)
    found = both.train_metrics(step.loss.item(), 4, [float(each) for each in step.statistics])
    alone = Classification().step(model, batch)
    assert found["label_loss"] == pytest.approx(alone.loss.item() / 4)
    assert found["label_accuracy"] == alone.statistics[0].item() / 4
    assert found["size_mean"] == pytest.approx(model(batch[0]).mean().item())
    assert found["loss"] == pytest.approx(step.loss.item() / 4)


@torch.no_grad()
def test_metrics_of_ranks_are_merged_one_of_which_has_seen_nothing() -> None:
    model, both = Counted(5, 3), Composite({"label": Classification(), "size": Size()})
    whole, merged = both.metrics(), both.metrics()
    for batch in batches():
        whole.update(model, batch)
    for share in (batches()[:2], batches()[2:], []):
        rank = both.metrics()
        for batch in share:
            rank.update(model, batch)
        merged.merge(rank.state())
    assert merged.result() == pytest.approx(whole.result())
    assert merged.result()["samples"] == 12


@pytest.mark.parametrize(("tasks", "factors", "why"), [({}, {}, "there is none"), ({"a": Size()}, {"b": 2.0}, r"factors\.b: .* are a$")])
def test_a_composite_of_nothing_or_of_a_name_that_is_none_is_refused(tasks: dict[str, Any], factors: dict[str, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Composite(tasks, factors)


def test_a_lower_precision_is_the_models_and_what_comes_out_is_float32() -> None:
    model = torch.nn.Linear(5, 3)
    seen: list[torch.dtype] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    nested = computing(lambda x: {"scores": model(x), "count": len(x)}, CPU, "bf16")(torch.randn(4, 5))
    assert (seen, nested["scores"].dtype, nested["count"]) == ([torch.bfloat16], torch.float32, 4)
    assert computing(model, CPU, "fp32") is model
