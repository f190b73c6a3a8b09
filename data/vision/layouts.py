"""How a published set of small images may lie on the disk: Hugging Face's parquet, and what the authors publish and torchvision keeps.

A layout says which files it is, so that it can be found, and reads them chunk by chunk. Nothing of them is run: pickles are read by
data/store/pickled.py.
"""

from __future__ import annotations

import gzip
import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.store import pages, pickled
from data.store.corrupt import Corrupt
from data.store.decoded import Chunks
from data.store.files import first_line
from data.store.parquet import ROWS, read_images

_MOST = 256 << 20
"""Bytes of a file, unpacked: CIFAR-100's training pictures are 155 MB, and half as much again where Python 3 pickled them."""
_BLOCK = 512
"""Bytes of a header in a tar, and what its files are rounded up to."""


@dataclass(frozen=True)
class Layout(ABC):
    folder: str
    """Below data.root, without a slash behind it; empty where the files lie in data.root itself."""
    size: tuple[int, int]
    """(height, width) of a picture."""
    classes: int

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called in a line."""

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, Sequence[str]]:
        """The files of train and test, below data.root."""

    @abstractmethod
    def read(self, root: Path, part: str, corrupt: Corrupt) -> Chunks:
        """Raises ValueError naming the file, OSError."""

    def check(self, root: Path) -> None:
        """A quick look at the files, before they are hashed. Raises ValueError."""
        del root  # which says nothing of itself but by being read

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(name for names in self.parts.values() for name in names))

    @property
    def place(self) -> str:
        """By what it is looked for, as a user reads it."""
        return f"{self.folder}/" if self.folder else self.files[0]

    def missing(self, root: Path) -> list[str]:
        return [name for name in self.files if not (root / name).is_file()]

    def _labelled(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], refuse: Refusal, corrupt: Corrupt
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """In chunks, without what has a label that is none."""
        for row in np.flatnonzero((labels < 0) | (labels >= self.classes)):
            corrupt.leave_out(refuse(f"has the label {labels[row]} in row {row}, not one of 0..{self.classes - 1}"))
        good = np.flatnonzero((labels >= 0) & (labels < self.classes))
        for begin in range(0, len(good), ROWS):
            chosen = good[begin : begin + ROWS]
            yield images[chosen], labels[chosen]


class Refusal:
    """What is wrong with a file as the user's line."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name

    def __call__(self, why: object) -> ValueError:
        return ValueError(f"data.root={self._root}: {self._name} {why}; download it again or point data.root at a good copy")


@dataclass(frozen=True)
class Parquet(Layout):
    image: str = "img"
    label: str = "label"
    """Columns."""
    mode: str = "RGB"
    """Pillow's: RGB, or L for one channel."""

    @property
    def title(self) -> str:
        return "parquet"

    @property
    def place(self) -> str:
        return f"{self.folder}/*.parquet"

    @property
    def parts(self) -> Mapping[str, Sequence[str]]:
        return {part: [f"{self.folder}/{part}-00000-of-00001.parquet"] for part in ("train", "test")}

    def check(self, root: Path) -> None:
        for name in self.files:
            try:
                pages.check_footer(root / name)
            except ValueError as error:
                raise Refusal(root, name)(error) from error

    def read(self, root: Path, part: str, corrupt: Corrupt) -> Chunks:
        columns: dict[str, Any] = {"image": self.image, "label": self.label, "classes": self.classes, "size": self.size, "mode": self.mode}
        for name in self.parts[part]:
            yield from read_images(root, name, corrupt=corrupt, **columns)


@dataclass(frozen=True)
class Batches(Layout):
    """Krizhevsky's: files of rows, each with red, green and blue one after the other."""

    train: tuple[str, ...] = tuple(f"data_batch_{number}" for number in range(1, 6))
    test: tuple[str, ...] = ("test_batch",)
    archive: str = ""
    """A .tar.gz that holds the folder, where that is not unpacked."""
    label: str = "labels"

    @property
    def parts(self) -> Mapping[str, Sequence[str]]:
        if self.archive:
            return {"train": [self.archive], "test": [self.archive]}
        return {part: [f"{self.folder}/{name}" for name in names] for part, names in self._names.items()}

    @property
    def place(self) -> str:
        return self.archive or super().place

    @property
    def _names(self) -> Mapping[str, Sequence[str]]:
        return {"train": self.train, "test": self.test}

    def read(self, root: Path, part: str, corrupt: Corrupt) -> Chunks:
        names = [f"{self.folder}/{name}" for name in self._names[part]]
        packed = unpacked(root, self.archive, names) if self.archive else {}
        for name in names:
            refuse = Refusal(root, f"{self.archive}: {name}" if self.archive else name)
            raw = packed.pop(name) if self.archive else bounded(root, name)
            try:
                rows, labels = self.rows(raw)
            except ValueError as error:
                raise refuse(error) from error
            del raw
            yield from self._labelled(rows.reshape(-1, 3, *self.size).transpose(0, 2, 3, 1), labels, refuse, corrupt)

    @abstractmethod
    def rows(self, raw: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """(n, 3 * height * width) and (n,). Raises ValueError."""


class Pickles(Batches):
    @property
    def title(self) -> str:
        return "batches in pickles, which are read and not run"

    def rows(self, raw: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        found = pickled.read(raw)
        if absent := [key for key in ("data", self.label) if key not in found]:
            raise ValueError(f"has no {absent[0]}, but {', '.join(sorted(found))[:80] or 'nothing'}")
        rows, labels, wide = found["data"], found[self.label], 3 * math.prod(self.size)
        if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != wide:
            shape = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "no array"
            raise ValueError(f"has as data {shape}, not uint8 (rows, {wide})")
        if isinstance(labels, np.ndarray):
            labels = labels.tolist()
        if not isinstance(labels, list) or not all(type(each) is int and abs(each) < 1 << 31 for each in labels):
            raise ValueError(f"has {self.label} that are not whole numbers")
        if len(labels) != len(rows):
            raise ValueError(f"has {len(labels):,} {self.label} for {len(rows):,} rows of data")
        return rows, np.array(labels, np.int64)


@dataclass(frozen=True)
class Binary(Batches):
    """Bytes without a header: of each row its labels, then its pixels."""

    label_bytes: int = 1
    """How many labels a row begins with."""
    which: int = 0
    """Of these the one that is learnt."""

    @property
    def title(self) -> str:
        return "batches in the binary version"

    def rows(self, raw: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        wide = self.label_bytes + 3 * math.prod(self.size)
        if len(raw) % wide:
            raise ValueError(f"has {len(raw):,} bytes, which are no rows of {wide:,}: it is cut, or no such file")
        rows = np.frombuffer(raw, np.uint8).reshape(-1, wide)
        return rows[:, self.label_bytes :], rows[:, self.which].astype(np.int64)


@dataclass(frozen=True)
class Idx(Layout):
    """LeCun's: a header with the shape, then bytes (http://yann.lecun.com/exdb/mnist/)."""

    suffix: str = ""

    @property
    def title(self) -> str:
        return f"idx files{' in gzip' if self.suffix else ''}"

    @property
    def parts(self) -> Mapping[str, Sequence[str]]:
        inside = f"{self.folder}/" if self.folder else ""
        names = {"train": "train", "test": "t10k"}
        kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
        return {part: [f"{inside}{name}-{kind}{self.suffix}" for kind in kinds] for part, name in names.items()}

    @property
    def place(self) -> str:
        return self.files[0].replace("train-images-idx3-ubyte", "*-ubyte")

    def read(self, root: Path, part: str, corrupt: Corrupt) -> Chunks:
        images, labels = (self._array(root, name, dimensions) for name, dimensions in zip(self.parts[part], (3, 1), strict=True))
        refuse = Refusal(root, self.parts[part][1])
        if images.shape[1:] != self.size:
            raise Refusal(root, self.parts[part][0])(f"has pictures of {images.shape[1:]}, not {self.size}")
        if len(labels) != len(images):
            raise refuse(f"has {len(labels):,} labels for {len(images):,} pictures")
        yield from self._labelled(images[..., None], labels.astype(np.int64), refuse, corrupt)

    def _array(self, root: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
        raw, begin = bounded(root, name), 4 + 4 * dimensions
        shape = np.frombuffer(raw[4:begin], ">u4").tolist() if len(raw) >= begin else []
        if raw[:4] != bytes((0, 0, 8, dimensions)) or len(shape) != dimensions:
            raise Refusal(root, name)(f"is no idx file of bytes in {dimensions} dimensions")
        if math.prod(shape) != len(raw) - begin:
            raise Refusal(root, name)(f"has {len(raw) - begin:,} bytes and not the {math.prod(shape):,} of its shape {tuple(shape)}")
        return np.frombuffer(raw, np.uint8, offset=begin).reshape(shape)


def bounded(root: Path, name: str) -> bytes:
    """All of a file, unpacked where it is gzip by its name. Raises ValueError where that is more than such a file has, or cut; OSError."""
    refuse = Refusal(root, name)
    with (root / name).open("rb") as file:
        if not name.endswith(".gz"):
            raw = file.read(_MOST + 1)
        else:
            with _unzipping(refuse), gzip.open(file) as inner:
                raw = inner.read(_MOST + 1)
    if len(raw) > _MOST:
        raise refuse(f"is larger than the {_MOST >> 20} MiB that such a file may have")
    return raw


def unpacked(root: Path, archive: str, names: Sequence[str]) -> dict[str, bytes]:
    """Those files of a tar in gzip, read from its beginning to its end. Raises ValueError where it is cut or holds more than such a file;
    OSError. Of tar no more is known than names, sizes and where the next header is: nothing is unpacked to the disk."""
    refuse, found, seen = Refusal(root, archive), dict[str, bytes](), 0
    with (root / archive).open("rb") as file, _unzipping(refuse), gzip.open(file) as inner:
        while any(header := inner.read(_BLOCK)):
            try:
                size = int(header[124:136].strip(b"\0 ") or b"0", 8)
            except ValueError as error:
                raise refuse("is no tar of batches, or cut") from error
            seen += size + _BLOCK
            if len(header) < _BLOCK or size < 0 or seen > _MOST:
                raise refuse(f"is cut, or larger than the {_MOST >> 20} MiB that such a file may have")
            name = header[:100].rstrip(b"\0").decode("latin-1").removeprefix("./")
            content = inner.read(-(-size // _BLOCK) * _BLOCK) if name in names and header[156:157] in b"0\0" else b""
            if content:
                found[name] = content[:size]
            else:
                inner.seek(-(-size // _BLOCK) * _BLOCK, 1)
            if content and len(content) < size:
                raise refuse(f"ends within {name}")
    if absent := [name for name in names if name not in found]:
        raise refuse(f"has no {absent[0]} in it")
    return found


@contextmanager
def _unzipping(refuse: Refusal) -> Iterator[None]:
    """What gzip says of a torn file, in one line."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise refuse(f"is no gzip file, or cut ({first_line(error)})") from error
