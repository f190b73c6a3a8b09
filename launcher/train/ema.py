"""The weights that are evaluated: an exponential moving average of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from launcher.train.local import local


class Ema:
    """Shadow of what this process holds of every floating-point parameter and buffer, moved towards it after each step (Polyak averaging);
    of no buffer that holds infinities, as masks do.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that a young average does not remember the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [name for name, _ in _floating(model)]
        self.live = [local(tensor).detach() for _, tensor in _floating(model)]
        self.shadow = [tensor.clone() for tensor in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        # one kernel for all tensors; torch's own swa_utils calls it too
        torch._foreach_lerp_(self.shadow, self.live, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the average in: values, for a strategy that gathers weights does so from the memory in which it has put them."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for live, shadow in zip(self.live, self.shadow, strict=True):
            kept = live.clone()
            live.copy_(shadow)
            shadow.copy_(kept)


class NoEma:
    """`train.ema_decay=0`."""

    names: tuple[str, ...] = ()
    shadow: tuple[torch.Tensor, ...] = ()

    def update(self, step: int) -> None:
        pass

    def applied(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _floating(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if buffer.isfinite().all()]
    return [(name, tensor) for name, tensor in [*model.named_parameters(), *buffers] if tensor.is_floating_point()]
