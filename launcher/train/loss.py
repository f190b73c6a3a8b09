"""The loss of a micro-batch, and where its backward pass begins. What a config does not use costs nothing here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from launcher.node.pulse import BACKWARD
from launcher.train.local import gradients, whole
from launcher.train.record.clock import Clock
from launcher.train.record.meter import Meter
from launcher.train.tasks.task import Model, Step, Task
from launcher.train.watch import NoWatch, Watch


@dataclass(frozen=True)
class Shares:
    """How an update's samples are divided."""

    batch_size: int
    """Samples of an update over the whole world."""
    accumulate: int
    """Micro-batches of one rank."""
    dp_size: int
    counts: bool = True
    """Whether this rank's weights are those of a share, and not the same as a peer's."""
    parts: int = 1
    """Ranks that share each sample, a part of its sequence each: a strategy takes the mean over those too."""

    @property
    def micro_batch(self) -> int:
        return self.batch_size // (self.accumulate * self.dp_size)


class Loss:
    """A Compute (launcher/strategies/protocol.py): calls the task with one micro-batch after the other, and counts what comes of it.

    Gradients are those of the mean over the update: of the sum of all losses over the sum of all weights, times the number of
    data-parallel ranks, for a strategy takes the mean over those.
    """

    def __init__(
        self,
        task: Task,
        model: Model,
        meter: Meter,
        shares: Shares,
        scaler: torch.amp.GradScaler | None,
        watch: Watch | NoWatch,
        clock: Clock,
        is_staged: bool = False,
    ) -> None:
        """`model` is what the task calls. `is_staged`: whether some ranks never come to a loss, for others have the model's end."""
        self.is_ready = False
        """Whether a micro-batch of this update has come to its loss."""
        self._task, self._model, self._meter, self._shares = task, model, meter, shares
        self._scaler, self._watch, self._clock, self._is_staged = scaler, watch, clock, is_staged
        self._seeds: dict[int, torch.Tensor] = {}
        """Weight of a micro-batch (-1: the host does not know it) -> what its backward pass begins with."""
        self._weights: list[torch.Tensor] = []
        """Of this update's micro-batches, where the host does not know them."""
        self._weighs: bool | None = None
        """Where the model is staged, whether the ranks that come to a loss have such; None: not asked yet."""

    def __call__(self, batch: Any) -> None:
        """Forward and backward."""
        loss, seed = self._forward(batch)
        loss.backward(seed)

    def forward(self, batch: Any) -> torch.Tensor:
        """0-d; its backward pass leaves the gradients that `__call__` does."""
        loss, seed = self._forward(batch)
        return loss * seed

    def measured(self, batch: Any) -> tuple[torch.Tensor, int | torch.Tensor]:
        """The task's loss and its weight, which count for nothing."""
        loss, weight, *_ = self._task.step(self._model, batch)
        return loss, weight

    def weigh(self, parameters: Iterable[torch.Tensor]) -> None:
        """After the last backward pass of an update. Where the host does not know the weights, gradients were made for as much weight as
        there are samples; now those of all ranks are known."""
        weighs = self._is_weighed() if self._is_staged else bool(self._weights)
        if not weighs:
            return
        shares, device = self._shares, self._meter.device
        total = torch.stack(self._weights).sum(dtype=torch.float32) if self._weights else torch.zeros((), device=device)
        self._weights.clear()
        if dist.is_initialized():
            dist.all_reduce(total if shares.counts else total.zero_())
        if here := gradients(parameters):  # a stage may be frozen
            factor = torch.where(total > 0, shares.batch_size * shares.parts / total, 0.0).to(here[0].device)
            torch._foreach_mul_(here, factor)  # pyright: ignore[reportPrivateImportUsage]

    def _is_weighed(self) -> bool:
        """Every rank asks at the same time, and once."""
        if self._weighs is None:
            some = torch.tensor(len(self._weights), device=self._meter.device)
            dist.all_reduce(some, op=dist.ReduceOp.MAX)
            self._weighs = bool(some.item())
        return self._weighs

    def _forward(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the gradient that its backward pass begins with."""
        step = self._task.step(self._model, batch)
        if type(step.loss) is not torch.Tensor:  # a DTensor, of scores that are cut
            step = Step(whole(step.loss), step.weight, tuple(map(whole, step.statistics)))
        now = self._watch.at(BACKWARD)
        if not self.is_ready:
            self.is_ready = True
            self._clock.ready(now)
        weight = step.weight
        if isinstance(weight, int):
            seed = self._seeds.get(weight)
            seed = self._seed(weight * self._shares.accumulate, weight, step.loss) if seed is None else seed
        else:
            self._weights.append(weight.detach())
            seed = self._seed(self._shares.micro_batch * self._shares.accumulate, -1, step.loss)
        self._meter.add(step)
        return step.loss, seed if self._scaler is None else self._scaler.scale(seed)

    def _seed(self, divisor: int, key: int, loss: torch.Tensor) -> torch.Tensor:
        """The gradient of loss / divisor by the loss: given to its backward pass, it saves two operations of the division."""
        if key not in self._seeds:
            if len(self._seeds) > 1000:  # weights that never come again
                self._seeds.clear()
            self._seeds[key] = torch.full_like(loss.detach(), 1 / max(1, divisor))
        return self._seeds[key]
