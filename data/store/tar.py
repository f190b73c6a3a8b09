"""What lies where in a tar of samples, so that one can be read without the rest: names, where their bytes begin, how many there are.

Python's tarfile reads the headers; what is cut off shows only at the end of a file, which it does not look at.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from data.store.files import compressed


class Member(NamedTuple):
    """A file in a tar."""

    key: str
    """Its path up to the first dot of its name: the files of a sample have the same (WebDataset's rule)."""
    kind: str
    """The rest of its name, in lower case: jpg, cls, json."""
    offset: int
    size: int


class Cut(ValueError):
    """A tar that ends too early, or is none: what came before is whole."""

    def __init__(self, why: str, instead: str = "copy it again") -> None:
        super().__init__(why)
        self.instead = instead


def members(path: Path) -> Iterator[Member]:
    """In their order; directories, links and sparse files are passed over. Raises Cut behind the last whole one, OSError."""
    with path.open("rb") as file:
        _refuse_compressed(file.read(6))
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for entry in tar:
                    if entry.issparse():  # its bytes do not lie in one piece
                        continue
                    if entry.offset_data + entry.size > length:
                        raise Cut(f"it ends within {entry.name}")
                    folder, _, name = entry.name.rpartition("/")
                    stem, _, kind = name.partition(".")
                    if entry.isreg() and stem and kind:
                        yield Member(f"{folder}/{stem}" if folder else stem, kind.lower(), entry.offset_data, entry.size)
                _refuse_more(file, tar.offset)
        except tarfile.TarError as error:
            raise Cut(f"it is no tar, or cut ({error})") from error


def _refuse_compressed(begin: bytes) -> None:
    if kind := compressed(begin):
        raise Cut(f"it is compressed with {kind}, so that no sample can be read without all before it", "unpack it to a plain .tar")


def _refuse_more(file: IO[bytes], end: int) -> None:
    """Where tarfile stops there are zeros to the end of the file. It stops without a word at a header that is damaged, too."""
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise Cut("it has no end")
    if any(block):
        raise Cut(f"its header at byte {end} is damaged")
    while piece := file.read(1 << 20):
        if any(piece):
            raise Cut("something lies behind its end", "unpack tars that were joined (tar --ignore-zeros), and pack them as one")
