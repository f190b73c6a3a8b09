"""What lies where in a tar of samples, so that one can be read without the rest: names, where their bytes begin, how many there are.

Python's tarfile reads the headers; what is cut off shows only at the end of a file, which it does not look at.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


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


def members(path: Path) -> Iterator[Member]:
    """In their order; directories and links are passed over. Raises Cut behind the last whole one, OSError."""
    length = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                if entry.offset_data + entry.size > length:
                    raise Cut(f"it ends within {entry.name}")
                folder, _, name = entry.name.rpartition("/")
                stem, _, kind = name.partition(".")
                if entry.isreg() and stem and kind:
                    yield Member(f"{folder}/{stem}" if folder else stem, kind.lower(), entry.offset_data, entry.size)
            if tar.offset + tarfile.BLOCKSIZE > length:
                raise Cut("it has no end")
    except tarfile.TarError as error:
        raise Cut(f"it is no tar, or cut ({error})") from error
