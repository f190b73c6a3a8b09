"""Safetensors files, of which only what is asked for is read: a tensor, or a slice of one, straight into the memory where it is wanted.

Read, not mapped: of a map whose file is cut off or whose disk fails the kernel ends the process, where a read says what is wrong, and what
lies in a map counts as memory of the process. The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple

import torch

from launcher.errors import CheckpointError, said
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.tensorfile import NAMES
from launcher.trust import reading, vault

_DTYPES = {name: dtype for dtype, name in NAMES.items()}
_HEADER_BYTES = 100 << 20
"""The format's own limit."""
_BLOCK = 4 << 20
"""Bytes that are read at a time where they cannot go straight to where they are wanted: a GPU, other strides, another type."""
_PAGE = 4096
"""Runs that are shorter are read with what lies between them: the disk would read it too."""
_MOST_OPEN = 32
"""Files. A process may have a thousand, and a checkpoint more."""


class Entry(NamedTuple):
    """A tensor of a file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    """Of its first byte in the file."""


def header(checkpoint: Checkpoint, name: str) -> dict[str, Entry]:
    """What a file holds, by the names of its tensors; nothing else of it is read. Raises as Files."""
    with Files(checkpoint) as files:
        return files.header(name)


class Files:
    """The tensor files of a checkpoint, to be used in a `with`. Every method raises CheckpointError where a file cannot be read, and
    ValueError where it is not what a run writes (stored.as_written)."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._headers: dict[str, dict[str, Entry]] = {}
        self._opened: dict[str, tuple[io.RawIOBase, ExitStack]] = {}
        self._block = torch.empty(0, dtype=torch.uint8)

    def __enter__(self) -> Files:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._opened:
            self._close_oldest()

    def header(self, name: str) -> dict[str, Entry]:
        """As the function; read once."""
        if name not in self._headers:
            size = self._size(name)
            try:
                length = int.from_bytes(self._bytes(name, 0, min(8, size)), "little")
                if size < 8 or length > min(size - 8, _HEADER_BYTES):
                    raise ValueError("its header is longer than a header can be")
                entries = reading.record(self._bytes(name, 8, length))
                self._headers[name] = {key: _entry(of, 8 + length, size) for key, of in entries.items() if key != "__metadata__"}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{name} is no safetensors file: {said(error)}") from error
        return self._headers[name]

    def tensor(self, name: str, key: str) -> torch.Tensor:
        """All of one, in new memory of the host."""
        entry = self.header(name)[key]
        whole = torch.empty(entry.shape, dtype=entry.dtype)
        self.read(name, key, (0,) * whole.ndim, whole)
        return whole

    def read(self, name: str, key: str, begin: tuple[int, ...], into: torch.Tensor) -> None:
        """The part of a tensor that begins at `begin` and has the shape of `into`, which may lie anywhere, in any strides and type."""
        entry = self.header(name)[key]
        self._part(name, entry._replace(shape=entry.shape or (1,)), begin or (0,), into.detach().reshape(into.shape or (1,)))

    def _part(self, name: str, entry: Entry, begin: tuple[int, ...], into: torch.Tensor) -> None:
        if not into.numel():
            return
        row = math.prod(entry.shape[1:]) * entry.dtype.itemsize
        first, rest = entry.begin + begin[0] * row, entry.shape[1:]
        if tuple(into.shape[1:]) == rest:
            self._run(name, entry.dtype, first, into)
        elif _run_bytes(entry, tuple(into.shape)) < _PAGE and row <= _BLOCK:
            wanted = (slice(None), *(slice(low, low + size) for low, size in zip(begin[1:], into.shape[1:], strict=True)))
            for number, some in enumerate(into.split(rows := _BLOCK // row)):
                block = self._read_block(name, entry.dtype, first + number * rows * row, len(some) * row)
                some.copy_(block.view(len(some), *rest)[wanted])
        else:
            for number, each in enumerate(into):
                self._part(name, Entry(entry.dtype, rest, first + number * row), begin[1:], each)

    def _run(self, name: str, dtype: torch.dtype, position: int, into: torch.Tensor) -> None:
        """What lies in one piece in the file, and anyhow in memory."""
        if into.device.type == "cpu" and into.dtype == dtype and into.is_contiguous():
            flat = into.as_strided((into.numel(),), (1,))  # a single element may have any stride, and be contiguous
            self._fill(name, position, flat.view(torch.uint8).numpy().data)
            return
        size = into.numel() * dtype.itemsize
        if size <= _BLOCK:
            into.copy_(self._read_block(name, dtype, position, size).view(into.shape))
            return
        rows = max(1, _BLOCK * len(into) // size)
        for number, some in enumerate(into.split(rows) if len(into) > 1 else into):
            self._run(name, dtype, position + number * rows * (size // len(into)), some)

    def _read_block(self, name: str, dtype: torch.dtype, position: int, size: int) -> torch.Tensor:
        """In memory that the next block is read into too."""
        if not self._block.numel():
            self._block = torch.empty(_BLOCK, dtype=torch.uint8)
        self._fill(name, position, self._block[:size].numpy().data)
        return self._block[:size].view(dtype)

    def _bytes(self, name: str, position: int, size: int) -> bytes:
        data = bytearray(size)
        self._fill(name, position, memoryview(data))
        return bytes(data)

    def _fill(self, name: str, position: int, memory: memoryview) -> None:
        path = self.checkpoint.path / name
        try:
            file = self._file(name)
            file.seek(position)
            while len(memory):
                count: int | None = file.readinto(memory)  # pyright: ignore[reportAttributeAccessIssue]  # of all that are raw
                if not count:
                    raise CheckpointError(f"{path} ends before what it should hold")
                memory = memory[count:]
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
        except vault.Damaged as error:
            raise CheckpointError(f"{path} {error}") from error

    def _size(self, name: str) -> int:
        """Of what is in it, encrypted or not."""
        if not self.checkpoint.sealed:
            return self.checkpoint.files[name]["bytes"]
        try:
            return self._file(name).seek(0, os.SEEK_END)
        except OSError as error:
            raise CheckpointError(f"{self.checkpoint.path / name} cannot be read ({error.strerror})") from error

    def _file(self, name: str) -> io.RawIOBase:
        """Raises OSError."""
        if name not in self._opened:
            while len(self._opened) >= _MOST_OPEN:
                self._close_oldest()
            stack = ExitStack()
            self._opened[name] = stack.enter_context(self.checkpoint.opened(name)), stack
        return self._opened[name][0]

    def _close_oldest(self) -> None:
        self._opened.pop(next(iter(self._opened)))[1].close()


class Held(Mapping[str, torch.Tensor]):
    """The tensors of a file, each read when it is asked for."""

    def __init__(self, files: Files, name: str) -> None:
        """Raises as Files."""
        if name not in files.checkpoint.files:
            raise CheckpointError(f"{files.checkpoint.path} has no {name}")
        self.more: dict[str, torch.Tensor] = {}
        """As if they were in it too."""
        self._files = files
        self._name = name

    def __contains__(self, key: object) -> bool:
        return key in self.more or key in self._files.header(self._name)  # of a Mapping it would be read

    def __iter__(self) -> Iterator[str]:
        return iter({**self._files.header(self._name), **self.more})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.more[key] if key in self.more else self._files.tensor(self._name, key)


class Means(Mapping[str, torch.Tensor]):
    """Of several such the mean over those that have a name (of a pipeline each stage has its own), where it begins so and numbers have one;
    else what `share` has, or the first that has it, but for `instead`."""

    def __init__(
        self, each: Sequence[Mapping[str, torch.Tensor]], share: int, prefixes: tuple[str, ...], instead: Mapping[str, torch.Tensor]
    ) -> None:
        self._each = [each[share], *each]
        self._prefixes = prefixes
        self._instead = instead

    def __contains__(self, key: object) -> bool:
        return any(key in each for each in self._each)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for each in self._each for key in each))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: str) -> torch.Tensor:
        having = [each for each in self._each if key in each]
        if key in self._instead or not having:
            return self._instead[key]
        ours = having[0][key]
        if not key.startswith(self._prefixes) or not ours.is_floating_point():
            return ours
        having = [each for each in self._each[1:] if key in each]
        total = torch.zeros_like(ours, dtype=torch.float64)
        for each in having:
            total += each[key]
        return (total / len(having)).to(ours.dtype)


def _run_bytes(entry: Entry, shape: tuple[int, ...]) -> int:
    """Of a part of that shape, how many bytes lie side by side in the file."""
    run = entry.dtype.itemsize
    for whole, size in zip(reversed(entry.shape), reversed(shape), strict=True):
        run *= size
        if size != whole:
            break
    return run


def _entry(value: Any, first: int, size: int) -> Entry:
    """Raises ValueError, KeyError or TypeError: whoever wrote a header, what it names lies in its file."""
    shape, (begin, end) = tuple(value["shape"]), value["data_offsets"]
    dtype = _DTYPES.get(value["dtype"])
    if dtype is None or any(reading.whole_number(number) is None for number in (*shape, begin, end)):
        raise ValueError(f"a tensor of type {str(value['dtype'])[:20]!r} and shape {str(shape)[:80]}")
    if end - begin != math.prod(shape) * dtype.itemsize or first + end > size:
        raise ValueError("a tensor that does not lie in its file")
    return Entry(dtype, shape, first + begin)
