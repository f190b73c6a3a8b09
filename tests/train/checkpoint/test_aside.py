"""A save's copy on a stream of its own: training goes on beside it up to the next update. `make gpu` shows it on a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from launcher.strategies.replicated import Replicated
from launcher.train.closure import Closure
from launcher.train.loss import Loss, Shares
from launcher.train.norm import Norm
from launcher.train.optimizers import Optimizers
from launcher.train.record.clock import Clock
from launcher.train.record.meter import Meter
from launcher.train.step import Stepper
from launcher.train.tasks.task import Step
from launcher.train.watch import NoWatch
from launcher.train.world.ranks import Ranks

CPU = torch.device("cpu")
BATCH = torch.ones(4, 3)


class Copied:
    """Stands in for the event behind a copy."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def wait(self) -> None:
        self._seen.append("copied")


class Told:
    """Squares, and when they were gone through."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def step(self, model: Any, batch: torch.Tensor) -> Step:
        loss = model(batch).square().sum()
        loss.register_hook(lambda gradient: self._seen.append("backward"))
        return Step(loss, len(batch), {})


@pytest.mark.parametrize("closure", [False, True], ids=["one evaluation", "a closure"])
def test_the_first_update_after_a_save_waits_for_its_copies_and_no_other_does(closure: bool) -> None:
    seen: list[str] = []
    model, meter = nn.Linear(3, 1), Meter(CPU)
    made = torch.optim.LBFGS(model.parameters(), max_iter=1) if closure else torch.optim.SGD(model.parameters(), lr=0.1)
    made.register_step_pre_hook(lambda *ignored: seen.append("update"))
    optimizers = Optimizers([made], model)
    around = Closure(optimizers, model, meter, Ranks(0, 1), True, 0, False) if closure else None
    shares = Shares(batch_size=4, accumulate=1, dp_size=1)
    watch, clock, norm = NoWatch(), Clock(), Norm(optimizers, 0)
    loss = Loss(Told(seen), model, meter, shares, None, watch, clock)  # pyright: ignore
    stepper = Stepper(Replicated(), model, loss, optimizers, None, meter, 1, norm, watch, clock, None, around)
    for _ in range(2):  # as many as a save has files
        optimizers.wait_for(Copied(seen))  # pyright: ignore
    optimizers.wait_for(None)  # of a CPU
    for _ in range(2):
        stepper(iter([BATCH]), 1.0, want_norm=False)
    assert seen == ["backward", "copied", "copied", "update", "backward", "update"]
