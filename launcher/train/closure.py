"""The closure of an optimizer that evaluates the loss several times in one update, as LBFGS does along its line search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from launcher.errors import ConfigError
from launcher.train import device
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter
from launcher.train.world.ranks import Ranks


class Closure:
    """One function for the whole update: the same micro-batches, and generators and buffers as they were before the first evaluation, so
    that dropout draws the same masks. What an update leaves behind in buffers and totals is what its first evaluation left."""

    def __init__(
        self, optimizers: Optimizers, model: nn.Module, meter: Meter, ranks: Ranks, counts: bool, clip_norm: float, fp16: bool
    ) -> None:
        """`counts`: whether this rank's losses are those of a share, and not a peer's too. Raises ConfigError for fp16, whose scaler knows
        no closure, and where clipping would give the search another gradient than its loss has."""
        kind = type(optimizers.each[0]).__name__
        if fp16:
            raise ConfigError(f"train.precision=fp16: its gradient scaler cannot step {kind}, which takes a closure; type bf16 or fp32")
        if clip_norm > 0:
            raise ConfigError(f"train.clip_norm={clip_norm:g}: {kind} searches along the gradient as it is; type train.clip_norm=0")
        self._optimizers = optimizers
        self._meter = meter
        self._ranks, self._counts = ranks, counts
        self._device = optimizers.parameters[0].device
        self._buffers = list(model.buffers())

    @torch.no_grad()
    def around(self, micro_batches: Sequence[Any], evaluate: Callable[[Iterator[Any]], None]) -> Callable[[], None]:
        """Evaluate once, and return the update to make. `evaluate` adds this rank's gradients, reduces them over the ranks, and adds to the
        meter."""
        before, drawn = _copies(self._buffers), self._generators()
        self._evaluate(micro_batches, evaluate)
        known, after = [self._mean()], _copies(self._buffers)

        @torch.no_grad()
        def closure() -> torch.Tensor:
            if known:
                return known.pop()
            self._optimizers.zero_grad()
            _put_back(before, self._buffers)
            self._set_generators(drawn)
            with self._meter.apart():
                self._evaluate(micro_batches, evaluate)
                loss = self._mean()
            _put_back(after, self._buffers)
            return loss

        return lambda: self._optimizers.step_by(closure)

    def _evaluate(self, micro_batches: Sequence[Any], evaluate: Callable[[Iterator[Any]], None]) -> None:
        self._meter.mark()
        with torch.enable_grad():
            evaluate(iter(micro_batches))

    def _mean(self) -> torch.Tensor:
        """Of all losses on all ranks, in float64 on the host, equal to the bit on each: the search branches by it."""
        loss, weight = self._ranks.sum(self._meter.since_mark().cpu() * self._counts)
        return loss / weight

    def _generators(self) -> list[torch.Tensor]:
        drawn = [torch.get_rng_state()]
        own = device.drawn(self._device)
        return drawn if own is None else [*drawn, own]

    def _set_generators(self, drawn: list[torch.Tensor]) -> None:
        torch.set_rng_state(drawn[0])
        for own in drawn[1:]:
            device.set_drawn(own, self._device)


def _copies(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in tensors]


def _put_back(kept: Sequence[torch.Tensor], live: Sequence[torch.Tensor]) -> None:
    for tensor, now in zip(kept, live, strict=True):
        now.copy_(tensor)
