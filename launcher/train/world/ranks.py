"""The other processes, as few words as the loop needs; with one process each of them is nothing."""

from __future__ import annotations

import json
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
        """`timeout`: how long to wait for a rank that does not come (launcher/train/world/patience.py)."""
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
        """Everybody's value, on every rank: what JSON can hold, a tuple as a list."""
        return gather(value, self.group, self.world)

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, on every rank: what JSON can hold, a tuple as a list."""
        if self.group is None:
            return value
        text = _text(value) if self.is_first else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([text.numel()])
        dist.broadcast(length, src=0, group=self.group)
        text = text if self.is_first else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, src=0, group=self.group)
        return _value(text)

    def wait(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)


def gather(value: Any, group: Any, world: int) -> list[Any]:
    """As `Ranks.gather`. Not torch's all_gather_object: that unpickles what comes, and a pickle is a program."""
    if world == 1:
        return [value]
    text = _text(value)
    lengths = [torch.empty(1, dtype=torch.int64) for _ in range(world)]
    dist.all_gather(lengths, torch.tensor([text.numel()]), group=group)
    longest = max(int(length) for length in lengths)
    texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(world)]
    dist.all_gather(texts, torch.nn.functional.pad(text, (0, longest - text.numel())), group=group)
    return [_value(other[: int(length)]) for other, length in zip(texts, lengths, strict=True)]


def _text(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(text: torch.Tensor) -> Any:
    return json.loads(bytes(text.tolist()))
