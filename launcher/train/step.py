"""One optimizer update. What a config does not use is decided here once, and costs nothing in the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from launcher.node.pulse import BACKWARD, FORWARD, UPDATE
from launcher.train.closure import Closure
from launcher.train.guard.skip import Skipper
from launcher.train.optimizers import Optimizers
from launcher.train.record.metrics import Meter
from launcher.train.watch import NoWatch, Watch


class Stepper:
    """Forward, backward, clip, update: the plain PyTorch loop, on the objects inside Accelerate's wrappers.

    Accelerate's own wrappers for optimizer and schedule cost 135 to 155 microseconds per step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Optimizers,
        scaler: torch.amp.GradScaler | None,
        task: Any,
        meter: Meter,
        clip_norm: float,
        no_sync: Callable[[nn.Module], Any],
        watch: Watch | NoWatch,
        skipper: Skipper | None = None,
        closure: Closure | None = None,
    ) -> None:
        self.model = model
        self.optimizers = optimizers
        self.scaler = scaler
        self.task = task
        self.meter = meter
        self.clip_norm = clip_norm
        self.no_sync = no_sync
        self.watch = watch
        self.skipper = skipper
        self.closure = closure
        self.ready = 0.0
        """When the first backward pass began, by time.perf_counter: from there on ranks wait for each other."""

    def __call__(
        self, micro_batches: Sequence[Any], lr_factor: float, want_norm: bool, look: Callable[[Callable[[], None]], None] | None = None
    ) -> torch.Tensor | None:
        """Update the weights by one global batch. Returns the gradient's L2 norm, before clipping, where it is known or wanted.

        `look` is given the update to make, and makes it: it sees gradients (unscaled, if the norm is wanted) and weights before and after.
        """
        self.optimizers.set_lr(lr_factor)
        self.ready = 0.0
        if self.skipper is not None:
            self.skipper.before()
        update = self._update
        if self.closure is None:
            self._evaluate(micro_batches)
        else:
            update = self.closure.around(lambda: self._evaluate(micro_batches))
        norm = self._norm(want_norm or self.skipper is not None)
        if self.skipper is not None and norm is not None:
            self.skipper.after(norm)
        update() if look is None else look(update)
        self.optimizers.zero_grad()
        self.meter.steps += 1
        return norm

    def _update(self) -> None:
        self.optimizers.step(self.scaler)

    def _evaluate(self, micro_batches: Sequence[Any]) -> list[torch.Tensor]:
        """Gradients of one global batch, reduced. Returns the loss of each micro-batch."""
        *first, last = micro_batches
        losses: list[torch.Tensor] = []
        for batch in first:
            with self.no_sync(self.model):  # gradients cross the network once, with the last micro-batch
                losses.append(self._backward(batch, len(micro_batches)))
        losses.append(self._backward(last, len(micro_batches)))
        self.watch.at(UPDATE)
        return losses

    def _backward(self, batch: Any, parts: int) -> torch.Tensor:
        self.watch.at(FORWARD)
        outputs = self.model(self.task.inputs(batch))
        loss = self.task.loss(outputs, batch)
        scaled = loss / parts if parts > 1 else loss
        self.watch.at(BACKWARD)
        self.ready = self.ready or time.perf_counter()
        (scaled if self.scaler is None else self.scaler.scale(scaled)).backward()
        loss = loss.detach()
        with torch.no_grad():
            self.meter.samples += self.task.count(self.meter.sums, loss, outputs.detach(), batch)
        return loss

    def _norm(self, wanted: bool) -> torch.Tensor | None:
        if self.clip_norm == 0 and not wanted:
            return None
        if self.scaler is not None:
            self.optimizers.unscale(self.scaler)
        if self.clip_norm > 0:
            return nn.utils.clip_grad_norm_(self.optimizers.parameters, self.clip_norm)
        return nn.utils.get_total_norm([parameter.grad for parameter in self.optimizers.parameters if parameter.grad is not None])
