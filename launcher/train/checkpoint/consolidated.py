"""A checkpoint of any strategy and world as one safetensors file of whole tensors, by the names that the model has for them.

One tensor at a time: what is in memory is the largest, not the model. A parameter that two modules share is there once, by the name
that a checkpoint has it by, the first of them; `load_state_dict(…, strict=False)` of a model that ties them itself takes the file.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from launcher.errors import CheckpointError, RunError
from launcher.train.checkpoint.manifest import Checkpoint, verify
from launcher.train.checkpoint.slices import Files
from launcher.train.checkpoint.stored import as_written, record_in
from launcher.train.checkpoint.tensorfile import NAMES
from launcher.trust import writing

PIECE = 1 << 24
"""Bytes that are written at once."""


class _Part(NamedTuple):
    """Of a tensor, what one file has."""

    file: str
    key: str
    shape: tuple[int, ...]
    offset: tuple[int, ...] | None
    """Of its first element in the whole; None: it is the whole."""
    whole: tuple[int, ...] | None = None
    """The shape of that; None where nobody says."""


class _Whole(NamedTuple):
    dtype: str
    """As safetensors writes it."""
    size: int
    """Bytes of an element."""
    shape: tuple[int, ...]
    parts: tuple[_Part, ...]
    """That fill it, each element once; or, of a buffer, every rank's own whole."""
    is_mean: bool = False

    @property
    def bytes(self) -> int:
        """Of all of it."""
        return math.prod(self.shape) * self.size


def consolidate(path: Path, into: Path | io.BytesIO, kind: str = "model") -> Checkpoint:
    """Write the parameters of the checkpoint `path`, and its buffers, into the file `into`: there whole, or not at all; or into memory,
    where nothing of it may lie on a disk. Returns what it is of. `kind`: model, or ema for the averages of train.ema_decay.

    A buffer is the mean over the ranks, as a run has it that goes on in another world (state.py); with it are those that no state_dict
    has. Every byte is verified before any is taken. Raises CheckpointError for a checkpoint that is damaged, that lacks a piece of a
    tensor, or that keeps no averages; RunError where `into` cannot be written.
    """
    checkpoint = verify(path)
    with as_written(checkpoint):
        found = _parameters(checkpoint, kind)
        if kind == "ema":
            if not found:
                raise CheckpointError(f"{checkpoint.path} keeps no averages (train.ema_decay=0); take the model itself")
            found = {**_parameters(checkpoint, "model"), **found}  # what is no floating-point number has none
        found |= _buffers(checkpoint, kind)
    ordered = dict(sorted(found.items(), key=lambda item: (-item[1].size, item[0])))  # each lies at a multiple of its size
    try:
        if isinstance(into, io.BytesIO):
            into.truncate(into.seek(0))  # of one that was damaged a part may be there
            into.writelines(_content(checkpoint, ordered))
        else:
            _write(_content(checkpoint, ordered), into)
    except OSError as error:
        raise RunError(f"{into} cannot be written ({error.strerror or error}); make room, or type another path") from error
    return checkpoint


# ---------------------------------------------------------------- what is there


def _parameters(checkpoint: Checkpoint, kind: str) -> dict[str, _Whole]:
    """Raises CheckpointError where what the ranks have is not all of each."""
    parts: dict[str, list[_Part]] = {}
    types: dict[str, set[tuple[str, int]]] = {}
    lost: dict[str, str] = {}
    for rank in range(checkpoint.world):
        file = f"{kind}.safetensors" if rank == 0 else f"{kind}.{rank}.safetensors"
        record = record_in(checkpoint, f"rank_{rank}.json")
        offsets, shapes = record.get("pieces", {}), record.get("shapes", {})  # older launchers had neither, or offsets alone
        held = _header(checkpoint, file) if file in checkpoint.files else {}
        lost |= dict.fromkeys(offsets.keys() - held.keys(), file)
        for key, (dtype, size, shape) in held.items():
            offset = tuple(map(int, offsets[key])) if key in offsets else None
            whole = tuple(map(int, shapes[key])) if key in shapes else None
            parts.setdefault(key, []).append(_Part(file, key, shape, offset, whole))
            types.setdefault(key, set()).add((dtype, size))
    for name in sorted(lost.keys() if kind == "model" else lost.keys() & parts.keys()):  # of what is not averaged nobody has a piece
        raise CheckpointError(f"{checkpoint.path} is not all there: {lost[name]} lacks its piece of {name}")
    return {name: _joined(checkpoint, name, types[name], each) for name, each in parts.items()}


def _joined(checkpoint: Checkpoint, name: str, types: set[tuple[str, int]], parts: Sequence[_Part]) -> _Whole:
    if len(types) > 1:
        raise CheckpointError(f"{checkpoint.path}: the pieces of {name} are {' and '.join(sorted(dtype for dtype, _ in types))}")
    ((dtype, size),) = types
    if len(parts) == 1 and parts[0].offset is None:
        return _Whole(dtype, size, parts[0].shape, tuple(parts))
    shape = _filled(parts)
    if shape is None or any(part.whole not in (shape, None) for part in parts):
        raise CheckpointError(f"{checkpoint.path} is not all there: the {len(parts)} pieces of {name} that it has do not make a whole")
    return _Whole(dtype, size, shape, tuple(parts))


def _filled(parts: Sequence[_Part]) -> tuple[int, ...] | None:
    """The shape that they fill, each element once; None where they do not. A strategy cuts each dimension by itself: they lie in a grid.
    One that is alone and says that it is a part of something is not all of it.
    """
    places = [(part.offset, part.shape) for part in parts]
    if len(parts) < 2 or any(offset is None or len(offset) != len(shape) for offset, shape in places):
        return None
    there = [tuple(zip(offset or (), shape, strict=True)) for offset, shape in places if math.prod(shape)]
    whole: list[int] = []
    rows: list[list[tuple[int, int]]] = []
    for spans in zip(*there, strict=True):
        end, row = 0, sorted(set(spans))
        for begin, length in row:
            if begin != end:
                return None
            end += length
        whole.append(end)
        rows.append(row)
    grid = math.prod(map(len, rows)) == len(there) and sorted(there) == list(itertools.product(*rows))
    return tuple(whole) if rows and grid else None


def _buffers(checkpoint: Checkpoint, kind: str) -> dict[str, _Whole]:
    """Each rank has its own of each. What is no floating-point number has no average, and is the model's in both kinds."""
    held = [(file, _header(checkpoint, file)) for file in (f"rank_{rank}.safetensors" for rank in range(checkpoint.world))]
    found: dict[str, _Whole] = {}
    for prefix in ("buffer|", "average|")[: 1 + (kind == "ema")]:
        for key, (dtype, size, shape) in held[0][1].items():
            if key.startswith(prefix):
                if any(header.get(key) != (dtype, size, shape) for _, header in held):
                    raise CheckpointError(f"{checkpoint.path} is not all there: its ranks do not have the same {key}")
                parts = tuple(_Part(file, key, shape, None) for file, _ in held)
                found[key.removeprefix(prefix)] = _Whole(dtype, size, shape, parts, is_mean=True)
    return found


def _header(checkpoint: Checkpoint, file: str) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """Type, bytes of an element and shape of each tensor in it, without reading one."""
    if file not in checkpoint.files:
        raise CheckpointError(f"{checkpoint.path} has no {file}")
    with Files(checkpoint) as files:
        return {name: (NAMES[entry.dtype], entry.dtype.itemsize, entry.shape) for name, entry in files.header(file).items()}


# ---------------------------------------------------------------- one after the other


def _content(checkpoint: Checkpoint, wholes: Mapping[str, _Whole]) -> Iterator[bytes | memoryview]:
    """Raises CheckpointError for the files that are read."""
    yield _head(wholes)
    for whole in wholes.values():
        yield from _bytes(_tensor(checkpoint, whole))


def _write(content: Iterator[bytes | memoryview], into: Path) -> None:
    """Raises OSError for the file that is written."""
    part = into.with_name(f"{into.name}.part")
    try:
        with os.fdopen(writing.new(part), "wb") as file:
            file.writelines(content)
            file.flush()
            writing.sync(file.fileno())
        part.replace(into)
    finally:
        part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the file is whole; not every file system can do this with a directory
        descriptor = os.open(into.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _head(wholes: Mapping[str, _Whole]) -> bytes:
    """https://github.com/huggingface/safetensors#format; transformers asks for the format's name."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, whole in wholes.items():
        begin, end = end, end + whole.bytes
        entries[name] = {"dtype": whole.dtype, "shape": whole.shape, "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _tensor(checkpoint: Checkpoint, whole: _Whole) -> torch.Tensor:
    """Read where one file has all of it, else put together. Raises CheckpointError."""
    with as_written(checkpoint):
        if whole.is_mean:
            held = [_part(checkpoint, part) for part in whole.parts]
            return torch.stack([each.double() for each in held]).mean(0).to(held[0].dtype) if held[0].is_floating_point() else held[0]
        if len(whole.parts) == 1:
            return _part(checkpoint, whole.parts[0])
        result: torch.Tensor | None = None
        for part in whole.parts:
            tensor = _part(checkpoint, part)
            result = torch.empty(whole.shape, dtype=tensor.dtype) if result is None else result
            begins = part.offset or ()
            result[tuple(slice(begin, begin + length) for begin, length in zip(begins, part.shape, strict=True))] = tensor
        assert result is not None
        return result


def _part(checkpoint: Checkpoint, part: _Part) -> torch.Tensor:
    with Files(checkpoint) as files:
        return files.tensor(part.file, part.key)


def _bytes(tensor: torch.Tensor) -> Iterator[memoryview]:
    if tensor.numel():
        for piece in tensor.contiguous().view(-1).view(torch.uint8).split(PIECE):
            yield piece.numpy().data
