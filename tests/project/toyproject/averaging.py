"""A strategy by hand: each process has the whole model, and gradients are averaged after the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launcher.strategies.protocol import Compute
from launcher.strategies.replicated import Replicated


@dataclass(frozen=True)
class Averaging(Replicated):
    def forward_backward(self, prepared: Any, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        import torch.distributed as dist

        super().forward_backward(prepared, micro_batches, count, compute)
        if dist.is_initialized():
            for parameter in prepared.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad.div_(dist.get_world_size()))
