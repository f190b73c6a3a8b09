"""The other processes, as few words as the loop needs; with one process each of them is nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import safetensors.torch as safetensors
import torch
import torch.distributed as dist

HALF_HOUR = timedelta(minutes=30)
"""What gloo groups have that are made without a word."""


class Ranks:
    """Small host-side messages between some ranks, by default all, over a gloo group of their own.

    A group apart, so that nothing here waits behind gradients or for a GPU.
    """

    def __init__(self, rank: int, world: int, timeout: timedelta = HALF_HOUR, members: Sequence[int] | None = None) -> None:
        """`timeout`: how long to wait for a rank that does not come (launcher/train/world/patience.py). `members`: this rank among them;
        every rank of the world makes the same groups in the same order (torch.distributed.new_group)."""
        self.rank = rank
        self.members = tuple(range(world)) if members is None else tuple(members)
        self.group: Any = dist.new_group(list(self.members), backend="gloo", timeout=timeout) if len(self.members) > 1 else None

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def is_first(self) -> bool:
        return self.rank == self.members[0]

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
        return gather(value, self.group, self.size)

    def gather_tensors(self, tensors: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """Everybody's tensors, of any shapes and names, on every rank, on the CPU."""
        here = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        if self.group is None:
            return [here]
        text = torch.frombuffer(bytearray(safetensors.save(here)), dtype=torch.uint8)
        return [safetensors.load(bytes(other.numpy())) for other in _gathered(text, self.group, self.size)]

    def from_first(self, value: Any) -> Any:
        """The first rank's value, on every rank: what JSON can hold, a tuple as a list."""
        if self.group is None:
            return value
        text = _text(value) if self.is_first else torch.empty(0, dtype=torch.uint8)
        length = torch.tensor([text.numel()])
        dist.broadcast(length, src=self.members[0], group=self.group)
        text = text if self.is_first else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(text, src=self.members[0], group=self.group)
        return _value(text)

    def wait(self) -> None:
        if self.group is not None:
            dist.barrier(group=self.group)


def gather(value: Any, group: Any, size: int) -> list[Any]:
    """As `Ranks.gather`. Not torch's all_gather_object: that unpickles what comes, and a pickle is a program."""
    return [value] if size == 1 else [_value(other) for other in _gathered(_text(value), group, size)]


def _gathered(text: torch.Tensor, group: Any, size: int) -> list[torch.Tensor]:
    """Bytes of any length, 1-d uint8."""
    lengths = [torch.empty(1, dtype=torch.int64) for _ in range(size)]
    dist.all_gather(lengths, torch.tensor([text.numel()]), group=group)
    longest = max(int(length) for length in lengths)
    texts = [torch.empty(longest, dtype=torch.uint8) for _ in range(size)]
    dist.all_gather(texts, torch.nn.functional.pad(text, (0, longest - text.numel())), group=group)
    return [other[: int(length)] for other, length in zip(texts, lengths, strict=True)]


def _text(value: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)


def _value(text: torch.Tensor) -> Any:
    return json.loads(bytes(text.tolist()))
