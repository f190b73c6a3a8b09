"""Parameters, and what goes with them, as the pieces that ranks hold: each is written once, by the first of those that hold the same, and
read by whoever holds a part of it, in another world and another split too.

Rank 0's are in model.safetensors, optimizer.safetensors and ema.safetensors, those of rank r in model.<r>.safetensors and so on; where they
lie in the whole is in rank_<r>.json. What says nothing of itself is whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import torch

from launcher.errors import CheckpointError
from launcher.strategies.protocol import Piece
from launcher.train.checkpoint.slices import Files
from launcher.train.checkpoint.stored import record_in


class Shard(NamedTuple):
    """A tensor of a file."""

    file: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: tuple[int, ...] | None
    """Of its first element in the whole; None: it is whole, or no part of one."""
    whole: tuple[int, ...] | None
    """The shape of that; None where an older launcher did not say."""


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


def layout(rank: int, pieces: Mapping[str, Piece], parameters: Mapping[str, torch.Tensor]) -> dict[str, dict[str, list[int]]]:
    """For JSON, of the pieces that this rank writes and that are not the whole: their offsets, and the shapes of the whole."""
    ours = {name: piece for name, piece in pieces.items() if piece.owner == rank and piece.shape != tuple(parameters[name].shape)}
    return {
        "pieces": {name: list(piece.offset) for name, piece in ours.items()},
        "shapes": {name: list(piece.shape) for name, piece in ours.items()},
    }


def file_name(kind: str, rank: int) -> str:
    return f"{kind}.safetensors" if rank == 0 else f"{kind}.{rank}.safetensors"


class Stored:
    """The pieces of one kind in a checkpoint: `model`, `optimizer` or `ema`. Looked at first is the file of who writes a piece, and only
    where it is not there as it is wanted, as in another split, those of all ranks; of each nothing but its header, and the records of the
    ranks whose files they are. Every method raises CheckpointError.
    """

    def __init__(self, files: Files, kind: str) -> None:
        self._files = files
        self._kind = kind
        self._of: dict[int, dict[str, Shard]] = {}
        """Of each rank whose file was looked at."""

    @property
    def world(self) -> int:
        """How many ranks wrote it."""
        return self._files.checkpoint.world

    def names(self, ranks: Iterable[int]) -> list[str]:
        """What is in the files of those ranks."""
        return list(dict.fromkeys(name for rank in sorted(ranks) for name in self._held_by(rank)))

    def one_of(self, name: str, piece: Piece | None) -> Shard:
        """Any that has the name, of the one who writes that piece first."""
        own = self._held_by(piece.owner if piece else 0)
        if name in own:
            return own[name]
        if found := self._all(name):
            return found[0]
        raise CheckpointError(f"{self._files.checkpoint.path} has no {name}")

    def fill(self, name: str, into: torch.Tensor, piece: Piece | None) -> None:
        """`into` is what a rank with that piece holds under that name; where a checkpoint does not have all of that, it stays as it was."""
        shape = tuple(into.shape)
        whole, begin = (shape, (0,) * into.ndim) if piece is None else (piece.shape, piece.offset)
        own = self._held_by(piece.owner if piece else 0).get(name)
        found = [own] if own and (own.shape, own.offset or (0,) * into.ndim) == (shape, begin) else self._all(name)
        if len(whole) != into.ndim or any(len(shard.shape) != into.ndim or shard.whole not in (whole, None) for shard in found):
            self._refuse(name, whole, [shard.whole or shard.shape for shard in found])
        overlaps = [(shard, both) for shard in found if (both := _overlap(shard, shape, begin))]
        if sum(math.prod(both.shape) for _, both in overlaps) != into.numel():
            self._refuse(name, whole, [shard.shape for shard in found])
        for shard, both in overlaps:
            self._files.read(shard.file, name, both.there, into[both.here])

    def whole(self, name: str, shard: Shard) -> torch.Tensor:
        return self._files.tensor(shard.file, name)

    def _all(self, name: str) -> list[Shard]:
        return [held[name] for rank in range(self.world) if name in (held := self._held_by(rank))]

    def _held_by(self, rank: int) -> dict[str, Shard]:
        if rank not in self._of:
            file = file_name(self._kind, rank)
            self._of[rank] = self._look(file, rank) if file in self._files.checkpoint.files else {}
        return self._of[rank]

    def _look(self, file: str, rank: int) -> dict[str, Shard]:
        record = record_in(self._files.checkpoint, f"rank_{rank}.json")
        offsets, wholes = record.get("pieces", {}), record.get("shapes", {})
        found: dict[str, Shard] = {}
        for name, entry in self._files.header(file).items():
            owner = name.rpartition("|")[0] or name
            if owner in offsets and len(offsets[owner]) == len(entry.shape):
                whole = tuple(map(int, wholes[owner])) if owner in wholes else None
                found[name] = Shard(file, entry.shape, entry.dtype, tuple(map(int, offsets[owner])), whole)
            else:
                found[name] = Shard(file, entry.shape, entry.dtype, None, entry.shape)
        return found

    def _refuse(self, name: str, shape: tuple[int, ...], found: Iterable[tuple[int, ...]]) -> NoReturn:
        has = " and ".join(dict.fromkeys(f"shape {each}" for each in found)) or "nothing"
        raise CheckpointError(f"{self._files.checkpoint.path} is of another model: {name} needs shape {shape} and it has {has}")


class _Overlap(NamedTuple):
    there: tuple[int, ...]
    """Where it begins in the shard."""
    here: tuple[slice, ...]
    shape: tuple[int, ...]


def _overlap(shard: Shard, shape: tuple[int, ...], offset: tuple[int, ...]) -> _Overlap | None:
    """What a shard and a piece at that offset have of the whole."""
    there, here, sizes = [], [], []
    for ours, size, theirs, length in zip(offset, shape, shard.offset or (0,) * len(shard.shape), shard.shape, strict=True):
        low, high = max(ours, theirs), min(ours + size, theirs + length)
        if low >= high:
            return None
        there.append(low - theirs)
        here.append(slice(low - ours, high - ours))
        sizes.append(high - low)
    return _Overlap(tuple(there), tuple(here), tuple(sizes))


class Kept(Mapping[str, torch.Tensor]):
    """What the optimizers remember, as this rank holds it: what lies as its parameter does in pieces, the rest as it is. Each is read when
    it is asked for, into memory of the host that is the caller's."""

    def __init__(self, files: Files, parameters: Mapping[str, torch.Tensor], held: Mapping[str, Piece]) -> None:
        """`parameters`: those of which this rank has a part."""
        self._stored = Stored(files, "optimizer")
        self._parameters = parameters
        self._held = held

    def __iter__(self) -> Iterator[str]:
        """Those of its parameters, and those of which nothing is said; where it has one without any, as in another split, of all files."""
        names = self._stored.names({self._held[name].owner for name in self._parameters if name in self._held} or {0})
        if not self._parameters.keys() <= {name.rpartition("|")[0] for name in names}:
            names = self._stored.names(range(self._stored.world))
        return (name for name in names if (owner := name.rpartition("|")[0]) in self._parameters or owner not in self._held)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> torch.Tensor:
        owner = name.rpartition("|")[0]
        parameter, piece = self._parameters.get(owner), self._held.get(owner)
        shard = self._stored.one_of(name, piece)
        if parameter is None or piece is None or (shard.offset is None and shard.shape != piece.shape):
            return self._stored.whole(name, shard)
        part = torch.empty(parameter.shape, dtype=shard.dtype)
        self._stored.fill(name, part, piece)
        return part
