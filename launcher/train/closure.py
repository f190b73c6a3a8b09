"""The closure of an optimizer that evaluates the loss several times in one update, as LBFGS does along its line search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from launcher.errors import ConfigError
from launcher.train.optimizers import Optimizers
from launcher.train.record.metrics import Meter
from launcher.train.world.ranks import Ranks


class Closure:
    """One function for the whole update: the same micro-batches, and generators and buffers as they were before the first evaluation, so
    that dropout draws the same masks. What an update leaves behind in buffers and totals is what its first evaluation left."""

    def __init__(self, optimizers: Optimizers, model: nn.Module, meter: Meter, ranks: Ranks, clip_norm: float, fp16: bool) -> None:
        """Raises ConfigError for fp16, whose scaler knows no closure, and where clipping would give the search another gradient than its
        loss has."""
        kind = type(optimizers.each[0]).__name__
        if fp16:
            raise ConfigError(f"train.precision=fp16: its gradient scaler cannot step {kind}, which takes a closure; type bf16 or fp32")
        if clip_norm > 0:
            raise ConfigError(f"train.clip_norm={clip_norm:g}: {kind} searches along the gradient as it is; type train.clip_norm=0")
        self._optimizers = optimizers
        self._meter = meter
        self._ranks = ranks
        self._device = optimizers.parameters[0].device
        self._buffers = list(model.buffers())

    @torch.no_grad()
    def around(self, evaluate: Callable[[], Sequence[torch.Tensor]]) -> Callable[[], None]:
        """Evaluate once, and return the update to make. `evaluate` adds this rank's gradients, reduces them over the ranks, and returns the
        loss of each micro-batch, a mean over its samples."""
        before, drawn = _copies(self._buffers), self._generators()
        known: list[torch.Tensor] = [self._evaluated(evaluate)]
        live = [*self._buffers, *self._meter.sums]
        after, samples = _copies(live), self._meter.samples

        @torch.no_grad()
        def closure() -> torch.Tensor:
            if known:
                return known.pop()
            self._optimizers.zero_grad()
            _put_back(before, self._buffers)
            self._set_generators(drawn)
            loss = self._evaluated(evaluate)
            _put_back(after, live)
            self._meter.samples = samples
            return loss

        return lambda: self._optimizers.step_by(closure)

    def _evaluated(self, evaluate: Callable[[], Sequence[torch.Tensor]]) -> torch.Tensor:
        """The mean over micro-batches and ranks, in float64 on the host, equal to the bit on all ranks: the search branches by it."""
        with torch.enable_grad():
            losses = evaluate()
        mean = torch.stack([loss.double() for loss in losses]).mean().cpu()
        return self._ranks.sum(mean) / self._ranks.world

    def _generators(self) -> list[torch.Tensor]:
        drawn = [torch.get_rng_state()]
        return [*drawn, torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else drawn

    def _set_generators(self, drawn: list[torch.Tensor]) -> None:
        torch.set_rng_state(drawn[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(drawn[1], self._device)


def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in tensors]


def _put_back(kept: Sequence[torch.Tensor], live: Sequence[torch.Tensor]) -> None:
    for tensor, now in zip(kept, live, strict=True):
        now.copy_(tensor)
