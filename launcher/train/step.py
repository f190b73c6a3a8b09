"""One optimizer update. What a config does not use is decided here once, and costs nothing in the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from launcher.node.pulse import BACKWARD, UPDATE
from launcher.plan import Strategy
from launcher.train.closure import Closure
from launcher.train.guard.skip import Skipper
from launcher.train.local import gradients
from launcher.train.norm import Norm
from launcher.train.optimizers import Optimizers
from launcher.train.record.clock import Clock
from launcher.train.record.meter import Meter
from launcher.train.tasks.task import Model, Task
from launcher.train.watch import NoWatch, Watch

Look = Callable[[Callable[[], None]], None]
"""Is given the update to make, and makes it: it sees gradients (unscaled, if the norm is wanted) and weights before and after."""


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

    @property
    def micro_batch(self) -> int:
        return self.batch_size // (self.accumulate * self.dp_size)


class Stepper:
    """Forward, backward, clip, update: the plain PyTorch loop, on the objects inside Accelerate's wrappers.

    Accelerate's own wrappers for optimizer and schedule cost 135 to 155 microseconds per step. `compute` is all that the device does;
    what is said, counted and timed about it is outside of it.
    """

    def __init__(
        self,
        strategy: Strategy,
        prepared: Any,
        model: Model,
        task: Task,
        optimizers: Optimizers,
        scaler: torch.amp.GradScaler | None,
        meter: Meter,
        shares: Shares,
        norm: Norm,
        watch: Watch | NoWatch,
        clock: Clock,
        skipper: Skipper | None = None,
        closure: Closure | None = None,
    ) -> None:
        """`prepared` is the strategy's; `model` is what the task calls for it."""
        self.optimizers = optimizers
        self.meter = meter
        self.clock = clock
        self.is_collective = strategy.is_collective
        self._strategy, self._prepared, self._model, self._task = strategy, prepared, model, task
        self._scaler, self._watch, self._skipper, self._closure = scaler, watch, skipper, closure
        self._shares, self._norm = shares, norm
        self._seeds: dict[int, torch.Tensor] = {}
        """Weight of a micro-batch (-1: the host does not know it) -> what its backward pass begins with."""
        self._weights: list[torch.Tensor] = []
        """Of this update's micro-batches, where the host does not know them."""
        self._is_ready = False

    def release(self) -> None:
        """Of the model, what an evaluation leaves."""
        self._strategy.release(self._prepared)

    def __call__(self, micro_batches: Iterator[Any], lr_factor: float, want_norm: bool, look: Look | None = None) -> torch.Tensor | None:
        """Update the weights by one global batch. Returns the gradient's L2 norm, before clipping, where it is known or wanted."""
        self.optimizers.set_lr(lr_factor)
        self._is_ready = False
        norm = self.compute(micro_batches, want_norm, look)
        self.optimizers.zero_grad()
        self.meter.steps += 1
        return norm

    def compute(self, micro_batches: Iterator[Any], want_norm: bool, look: Look | None) -> torch.Tensor | None:
        """Gradients of the micro-batches, and the update that follows them."""
        skipper = self._skipper
        if skipper is not None:
            skipper.before()
        update = self._update
        if self._closure is None:
            self._evaluate(micro_batches)
        else:
            update = self._closure.around(list(micro_batches), self._evaluate)
        self._watch.at(UPDATE)
        norm = self._measured() if want_norm or self._norm.clips or skipper is not None else None
        if skipper is not None and norm is not None:
            skipper.after(norm, self._shares.accumulate)
        self.optimizers.make_way()
        update() if look is None else look(update)
        return norm

    def _update(self) -> None:
        self.optimizers.step(self._scaler)

    def _evaluate(self, micro_batches: Iterator[Any]) -> None:
        """Losses and gradients at the weights as they are."""
        self._strategy.forward_backward(self._prepared, micro_batches, self._shares.accumulate, self._forward_backward)
        if self._weights:
            self._weigh()

    def _forward_backward(self, batch: Any) -> None:
        step = self._task.step(self._model, batch)
        now = self._watch.at(BACKWARD)
        if not self._is_ready:
            self._is_ready = True
            self.clock.ready(now)
        weight = step.weight
        if isinstance(weight, int):
            seed = self._seeds.get(weight)
            seed = self._seed(weight * self._shares.accumulate, weight, step.loss) if seed is None else seed
        else:
            self._weights.append(weight.detach())
            seed = self._seed(self._shares.micro_batch * self._shares.accumulate, -1, step.loss)
        step.loss.backward(seed if self._scaler is None else self._scaler.scale(seed))
        self.meter.add(step)

    def _seed(self, divisor: int, key: int, loss: torch.Tensor) -> torch.Tensor:
        """The gradient of loss / divisor by the loss: given to its backward pass, it saves two operations of the division."""
        if key not in self._seeds:
            if len(self._seeds) > 1000:  # weights that never come again
                self._seeds.clear()
            self._seeds[key] = torch.full_like(loss.detach(), 1 / max(1, divisor))
        return self._seeds[key]

    def _weigh(self) -> None:
        """Gradients were made for as much weight as there are samples; now those of all ranks are known."""
        total = torch.stack(self._weights).sum(dtype=torch.float32)
        self._weights.clear()
        if dist.is_initialized():
            dist.all_reduce(total if self._shares.counts else total.zero_())
        factor = torch.where(total > 0, self._shares.batch_size / total, 0.0)
        torch._foreach_mul_(gradients(self.optimizers.parameters), factor)  # pyright: ignore[reportPrivateImportUsage]

    def _measured(self) -> torch.Tensor:
        if self._scaler is not None:
            self.optimizers.unscale(self._scaler)
        return self._norm.clip()
