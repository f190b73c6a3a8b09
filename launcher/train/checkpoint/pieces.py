"""Parameters, and what goes with them, as the pieces that ranks hold: each is written once, by the first of those that hold the same, and
read by whoever holds a part of it, in another world and another split too.

Rank 0's are in model.safetensors, optimizer.safetensors and ema.safetensors, those of rank r in model.<r>.safetensors and so on; where they
lie in the whole is in rank_<r>.json. What says nothing of itself is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import safetensors.torch as safetensors
import torch

from launcher.errors import CheckpointError
from launcher.plan import Piece
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.stored import record_in


class Shard(NamedTuple):
    """A tensor of a file."""

    tensor: torch.Tensor
    offset: tuple[int, ...] | None
    """Of its first element in the whole; None: it is whole, or no part of one."""


def written_by(rank: int, pieces: Mapping[str, Piece], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Of `tensors`, whose names are those of parameters or begin with one and a `|`, what this rank writes."""

    def is_ours(name: str) -> bool:
        piece = _of(name, pieces)
        return rank == (piece.owner if piece else 0)

    return {name: tensor for name, tensor in tensors.items() if is_ours(name)}


def held(rank: int, pieces: Mapping[str, Piece], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Of `tensors`, whose names are as for `written_by`, those of parameters of which this rank has a part, or that nothing is said of."""
    return {name: tensor for name, tensor in tensors.items() if not (piece := _of(name, pieces)) or rank in piece.replicas}


def _of(name: str, pieces: Mapping[str, Piece]) -> Piece | None:
    return pieces.get(name.rpartition("|")[0] or name)


def alike(rank: int, pieces: Mapping[str, Piece]) -> list[int]:
    """The ranks that hold the same as this one of every parameter, itself among them; empty where nothing is said."""
    groups = [set(piece.replicas) for piece in pieces.values() if rank in piece.replicas]
    return sorted(set.intersection(*groups)) if groups else []


def layout(rank: int, pieces: Mapping[str, Piece], parameters: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    """Offsets, for JSON, of the pieces that this rank writes and that are not the whole."""
    ours = {name: piece for name, piece in pieces.items() if piece.owner == rank}
    return {name: list(piece.offset) for name, piece in ours.items() if piece.shape != tuple(parameters[name].shape)}


def file_name(kind: str, rank: int) -> str:
    return f"{kind}.safetensors" if rank == 0 else f"{kind}.{rank}.safetensors"


class Stored:
    """The pieces of one kind in a checkpoint: `model`, `optimizer` or `ema`."""

    def __init__(self, checkpoint: Checkpoint, kind: str) -> None:
        self.path = checkpoint.path
        self.shards: dict[str, list[Shard]] = {}
        for rank in range(checkpoint.world):
            name = file_name(kind, rank)
            if name in checkpoint.files:
                offsets = record_in(checkpoint, f"rank_{rank}.json").get("pieces", {})
                for key, tensor in safetensors.load(checkpoint.read(name)).items():
                    offset = offsets.get(key.rpartition("|")[0] or key)
                    lies = None if offset is None or len(offset) != tensor.ndim else tuple(map(int, offset))
                    self.shards.setdefault(key, []).append(Shard(tensor, lies))

    def part(self, name: str, shape: torch.Size, piece: Piece | None) -> torch.Tensor:
        """What a rank with that piece holds under that name, of that shape. Raises CheckpointError where it is not there."""
        found = self.shards.get(name, [])
        lies = None if piece is None or piece.shape == tuple(shape) else piece.offset
        if len(found) == 1 and found[0].tensor.shape == shape and found[0].offset == lies:
            return found[0].tensor
        if piece is None or len(piece.shape) != len(shape) or not found:
            self._refuse(name, shape, found)
        result = torch.empty(shape, dtype=found[0].tensor.dtype)
        filled = sum(_copy(shard, result, piece.offset) for shard in found)
        if filled != result.numel():
            self._refuse(name, torch.Size(piece.shape), found)
        return result

    def _refuse(self, name: str, shape: torch.Size, found: list[Shard]) -> NoReturn:
        has = " and ".join(f"shape {tuple(shard.tensor.shape)}" for shard in found) or "nothing"
        raise CheckpointError(f"{self.path} is of another model: {name} needs shape {tuple(shape)} and it has {has}")


def _copy(shard: Shard, into: torch.Tensor, offset: tuple[int, ...]) -> int:
    """What both have of the whole. Returns how many elements that is."""
    begin = shard.offset or (0,) * shard.tensor.ndim
    source, target = [], []
    for ours, size, theirs, length in zip(offset, into.shape, begin, shard.tensor.shape, strict=True):
        low, high = max(ours, theirs), min(ours + size, theirs + length)
        if low >= high:
            return 0
        source.append(slice(low - theirs, high - theirs))
        target.append(slice(low - ours, high - ours))
    taken = shard.tensor[tuple(source)]
    into[tuple(target)] = taken
    return taken.numel()
