"""One optimizer update. What a config does not use is decided here once, and costs nothing in the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from launcher.node.pulse import UPDATE
from launcher.strategies.protocol import Strategy
from launcher.train.closure import Closure
from launcher.train.guard.skip import Skipper
from launcher.train.loss import Loss
from launcher.train.norm import Norm
from launcher.train.optimizers import Optimizers
from launcher.train.record.clock import Clock
from launcher.train.record.meter import Meter
from launcher.train.watch import NoWatch, Watch

Look = Callable[[Callable[[], None]], None]
"""Is given the update to make, and makes it: it sees gradients (unscaled, if the norm is wanted) and weights before and after."""


class Stepper:
    """Forward, backward, clip, update: the plain PyTorch loop, on the objects inside Accelerate's wrappers.

    Accelerate's own wrappers for optimizer and schedule cost 135 to 155 microseconds per step. `compute` is all that the device does;
    what is said, counted and timed about it is outside of it.
    """

    def __init__(
        self,
        strategy: Strategy,
        prepared: Any,
        loss: Loss,
        optimizers: Optimizers,
        scaler: torch.amp.GradScaler | None,
        meter: Meter,
        accumulate: int,
        norm: Norm,
        watch: Watch | NoWatch,
        clock: Clock,
        skipper: Skipper | None = None,
        closure: Closure | None = None,
    ) -> None:
        """`prepared` is the strategy's; `accumulate`: micro-batches of an update on this rank."""
        self.optimizers = optimizers
        self.meter = meter
        self.clock = clock
        self.is_collective = strategy.is_collective
        self._strategy, self._prepared, self._loss, self._accumulate = strategy, prepared, loss, accumulate
        self._scaler, self._watch, self._skipper, self._closure = scaler, watch, skipper, closure
        self._norm = norm

    def release(self) -> None:
        """Of the model, what an evaluation leaves."""
        self._strategy.release(self._prepared)

    def __call__(self, micro_batches: Iterator[Any], lr_factor: float, want_norm: bool, look: Look | None = None) -> torch.Tensor | None:
        """Update the weights by one global batch. Returns the gradient's L2 norm, before clipping, where it is known or wanted."""
        self.optimizers.set_lr(lr_factor)
        self._loss.is_ready = False
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
        now = self._watch.at(UPDATE)
        if not self._loss.is_ready:  # a stage that has no loss
            self.clock.ready(now)
        norm = self._measured() if want_norm or self._norm.clips or skipper is not None else None
        if skipper is not None and norm is not None:
            skipper.after(norm, self._accumulate)
        self.optimizers.make_way()
        update() if look is None else look(update)
        return norm

    def _update(self) -> None:
        self.optimizers.step(self._scaler)

    def _evaluate(self, micro_batches: Iterator[Any]) -> None:
        """Losses and gradients at the weights as they are."""
        self._strategy.forward_backward(self._prepared, micro_batches, self._accumulate, self._loss)
        self._loss.weigh(self.optimizers.parameters)

    def _measured(self) -> torch.Tensor:
        if self._scaler is not None:
            self.optimizers.unscale(self._scaler)
        return self._norm.clip()
