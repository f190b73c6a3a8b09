"""Tokens as somebody else has made them: files of whole numbers, raw (`.bin`) or NumPy's (`.npy`), cut into windows of one length.

Windows lie within one file, one behind the other. In training each is moved by as many tokens as are drawn for it, fewer than there are in
one and no further than its file goes, so that over the epochs a token is seen at every position.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.options import one_of, whole
from data.sharded.sharded import Sharded
from data.store.files import compressed, first_line, notice

if TYPE_CHECKING:
    import torch

_TYPES = ("uint16", "uint32", "int32", "int64", "uint8")
_PIECE = 64 << 20
_LABEL = 0
"""A window has none; there is one for each of them all the same, as in all sets of shards."""


class Tokens(Sharded):
    """Map-style: (length,) int64, and the token behind each of them. `shards`: windows of each file."""

    KIND = "tokens"

    def __init__(
        self,
        root: str | None = None,
        split: str = "train",
        train: str = "*train*",
        val: str | None = "*val*",
        test: str | None = "*test*",
        length: int = 1024,
        type: str = "uint16",
        header: int = 0,
        shift: bool = True,
        kinds: int | None = None,
        damaged: str = "refuse",
        cache: str | None = None,
        fingerprint: str | None = None,
        index: dict[str, str] | None = None,
    ) -> None:
        """`root`: the folder of the files. `train`, `val`, `test`: which of them, by a pattern of names. `length`: of a window. `type`: of
        a token in a raw file; a `.npy` says its own. `header`: bytes before the first in a raw file. `shift`: training windows begin
        elsewhere each time. `kinds`: tokens are 0 to one less, which is looked at when they are read; null: found, by reading all once.
        The others: as WebDataset has them. Raises as that does."""
        one_of("data.type", type, _TYPES)
        whole("data.length", length, 1)
        whole("data.header", header, 0)
        if kinds is not None:
            whole("data.kinds", kinds, 1)
        self.length, self.kinds = length, kinds
        self._type, self._header = np.dtype(type).newbyteorder("<"), header
        self._moved = shift and split == "train"
        super().__init__(
            root,
            split,
            {"train": train, "val": val, "test": test},
            kind="class",
            damaged=damaged,
            cache=cache,
            fingerprint=fingerprint,
            index=index,
            decides=[length, type, header],
        )
        self._begins = np.cumsum(self.shards) - self.shards
        self.num_classes = 0

    def prepare(self) -> dict[str, object]:
        """All tokens are read where nobody has said how many kinds there are."""
        found = super().prepare()
        if self.kinds is None:
            self.kinds = self._counted()
        return {**found, "kinds": self.kinds}

    def read(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        at = int(np.searchsorted(self._begins, index, side="right")) - 1
        shard, offset, _, kind, count = self._where[at].tolist()
        begin = (index - int(self._begins[at])) * self.length
        begin += random.randrange(min(self.length, count - begin - self.length)) if self._moved else 0
        path, dtype = self._files[shard], np.dtype(_spelt(kind))
        try:
            raw = self._bytes(shard, offset + begin * dtype.itemsize, (self.length + 1) * dtype.itemsize)
            tokens = np.frombuffer(raw, dtype).astype(np.int64)
            if tokens.min() < 0 or (self.kinds is not None and tokens.max() >= self.kinds):
                raise ValueError(f"has the token {tokens.min() if tokens.min() < 0 else tokens.max()}, where data.kinds={self.kinds}")
        except ValueError as error:
            raise ValueError(f"data.root={self.root}: the window at token {begin} of {path.name} {error}") from error
        window = torch.from_numpy(tokens)
        return window[:-1], window[1:]

    def nothing(self) -> str:
        return f"a window of data.length={self.length} tokens"

    def pieces(self, name: str) -> Iterator[tuple[tuple[int, ...], Sequence[Any]]]:
        """Where the tokens begin, how many windows they come to, of what type they are, and how many there are."""
        try:
            offset, count, dtype = _inside(self.root / name, self._type, self._header)
        except ValueError as error:
            self._doubt(f"{name}: {error}", "copy it again, or type data.type= and data.header= as they are")
            return
        if (windows := max(0, count - 1) // self.length) > 0:
            yield (offset, windows, _code(dtype), count), [_LABEL] * windows

    def _together(self) -> NDArray[np.int64]:
        return self._where[:, 2]

    def _counted(self) -> int:
        """Of all splits."""
        most = 0
        for names in self.names().values():
            for name in names:
                notice(f"Looking for the largest token of {name}, once (data.kinds=null)")
                path = self.root / name
                offset, count, dtype = _inside(path, self._type, self._header)
                with path.open("rb") as file:
                    file.seek(offset)
                    while len(piece := np.fromfile(file, dtype, min(count, _PIECE // dtype.itemsize))):
                        most, count = max(most, int(piece.max())), count - len(piece)
        return most + 1


def _inside(path: Path, dtype: np.dtype[Any], header: int) -> tuple[int, int, np.dtype[Any]]:
    """Where the tokens begin, how many there are, and their type. Raises ValueError, OSError."""
    if path.suffix not in (".bin", ".npy"):
        raise ValueError("is named as neither .bin nor .npy: name those alone, as in data.train=*train*.bin")
    if path.suffix != ".npy":
        with path.open("rb") as file:
            if kind := compressed(file.read(6)):
                raise ValueError(f"is compressed with {kind}: unpack it")
        size = path.stat().st_size - header
        if size < 0:
            raise ValueError(f"is shorter than its header of {header} bytes")
        if size % dtype.itemsize:
            raise ValueError(f"has {size} bytes of tokens, which is no multiple of {dtype.itemsize}")
        return header, size // dtype.itemsize, dtype
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, found = read(file)
        except ValueError as error:
            raise ValueError(f"is no .npy that can be read ({first_line(error)})") from error
        offset = file.tell()
    if len(shape) != 1 or found.name not in _TYPES:
        raise ValueError(f"has {found.name} of shape {shape}, not a row of {', '.join(_TYPES)}")
    if path.stat().st_size < offset + shape[0] * found.itemsize:
        raise ValueError(f"is cut: it has not the {shape[0]} tokens that it says")
    return offset, shape[0], found


def _code(dtype: np.dtype[Any]) -> int:
    return int.from_bytes(dtype.str.encode(), "little")


def _spelt(code: int) -> str:
    return code.to_bytes(8, "little").rstrip(b"\0").decode()
