"""The other processes, as few words as the loop needs; with one process each of them is nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

HALF_HOUR = timedelta(minutes=30)
"""What gloo groups have that are made without a word."""


class Ranks:
    """Small host-side messages between all ranks, over a gloo group of their own.

    A group apart, so that nothing here waits behind gradients or for a GPU.
    """

    def __init__(self, rank: int, world: int, timeout: timedelta = HALF_HOUR) -> None:
        """`timeout`: how long to wait for a rank that does not come (launcher/train/patience.py)."""
        self.rank = rank
        self.world = world
        self.group: Any = dist.new_group(backend="gloo", timeout=timeout) if world > 1 else None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum a CPU tensor over the ranks, in place."""
        if self.group is not None:
            dist.all_reduce(tensor, group=self.group)
        return tensor

    def begin_max(self, flag: torch.Tensor) -> Any:
        """Start the maximum of a CPU tensor over the ranks; `wait()` on what comes back."""
        return dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self.group, async_op=True)

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, on every rank."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def wait(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)
