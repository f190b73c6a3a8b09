"""Which pictures lie in a folder, by the folders in it: listed once, and again only where a directory has changed since.

    <cache>/pictures-<hash of the root>.json     directories and when each was changed; classes; names

A directory's time changes when a name in it comes or goes, so that of 100,000 files none is looked at again. It is the time that nobody can
set back (ctime), as what unpacks and copies does with the other. What is in the file is checked as a stranger's would be, and anything odd
is listed anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.store import owner

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
_FORMAT = 2
SETTLED_SECONDS = 2.0
"""A directory that has changed since may change again within the same tick of its file system's clock: such a list is not kept."""


class Names(Sequence[str]):
    """Paths below a root, in one piece of memory: a million of them as strings take three times as much, in each process."""

    def __init__(self, packed: bytes) -> None:
        """`packed`: each with a zero byte behind it."""
        self.packed = packed
        self._ends = np.flatnonzero(np.frombuffer(packed, np.uint8) == 0)

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        return cls(b"".join(os.fsencode(name) + b"\0" for name in names))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        begin = int(self._ends[place - 1]) + 1 if place else 0
        return os.fsdecode(self.packed[begin : int(self._ends[place])])


class Pictures(NamedTuple):
    """Those of one folder of classes."""

    classes: tuple[str, ...]
    """In the order of their names."""
    labels: NDArray[np.int64]
    """(n,), places in `classes`."""
    names: Names
    """Below the root, those of a class together, in the order of their names."""

    def at(self, places: NDArray[np.int64]) -> Pictures:
        """Only those."""
        return self._replace(labels=self.labels[places], names=Names.of([self.names[place] for place in places.tolist()]))

    @property
    def fingerprint(self) -> str:
        """Of the names and classes, not of what is in the files, which would have to be read."""
        digest = hashlib.sha256("\0".join((*self.classes, "")).encode(errors="surrogateescape"))
        digest.update(self.names.packed)
        return digest.hexdigest()


def pictures(root: Path, cache: Path) -> Pictures:
    """Of the folders in `root`, each a class with all that is below it; a name that begins with a dot is no picture's. Raises OSError."""
    file = cache / f"pictures-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
    known = _known(file, root)
    if known is not None:
        return known
    directories: dict[str, int] = {}
    classes = sorted(entry.name for entry in _entries(root, "", directories) if _is_directory(entry))
    found = [sorted(_below(root, name, directories)) for name in classes]
    made = Pictures(
        tuple(classes),
        np.repeat(np.arange(len(classes)), [len(names) for names in found]),
        Names.of([name for names in found for name in names]),
    )
    _keep(file, directories, made)
    return made


def _below(root: Path, folder: str, directories: dict[str, int]) -> Iterator[str]:
    wanting: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    """Each with the directories on the way, for a link may lead back to one."""
    while wanting:
        folder, above = wanting.pop()
        status = (root / folder).stat()
        here = (status.st_dev, status.st_ino)
        for entry in _entries(root, folder, directories) if here not in above else ():
            if _is_directory(entry):
                wanting.append((f"{folder}/{entry.name}", above | {here}))
            elif entry.name[entry.name.rfind(".") :].lower() in SUFFIXES and _is_file(entry):
                yield f"{folder}/{entry.name}"


def _is_directory(entry: os.DirEntry[str]) -> bool:
    return Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()  # which fails where a link leads to itself


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Or a link to what is not there, which is told when it is read. No pipe: reading it would never end."""
    if entry.is_symlink():
        return Path(entry).is_file() or not Path(entry).exists()
    return entry.is_file()


def _entries(root: Path, folder: str, directories: dict[str, int]) -> list[os.DirEntry[str]]:
    """The time is taken first: what comes while it is read makes it another."""
    directories[folder] = (root / folder).stat().st_ctime_ns
    with os.scandir(root / folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _keep(file: Path, directories: dict[str, int], made: Pictures) -> None:
    """Where that cannot be, it is listed again the next time."""
    if max(directories.values()) > time.time_ns() - SETTLED_SECONDS * 1e9:
        return
    counts = np.bincount(made.labels, minlength=len(made.classes)).tolist()
    text = json.dumps(
        {
            "format": _FORMAT,
            "directories": directories,
            "classes": made.classes,
            "counts": counts,
            "names": os.fsdecode(made.names.packed),
        }
    )
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(prefix=f"tmp.{file.name}.", dir=file.parent)
        try:
            with os.fdopen(descriptor, "w") as writing:
                writing.write(text)
            Path(aside).replace(file)
        except OSError:
            Path(aside).unlink()  # a disk that is full
            raise


def _known(file: Path, root: Path) -> Pictures | None:
    """What was listed, where no directory has changed since."""
    try:
        if not file.is_file() or owner.fault(file):
            return None
        kept = json.loads(file.read_bytes())
        directories, counts = kept["directories"], kept["counts"]
        if kept["format"] != _FORMAT or any((root / name).stat().st_ctime_ns != then for name, then in directories.items()):
            return None
        made = Pictures(tuple(kept["classes"]), np.repeat(np.arange(len(counts)), counts), Names(os.fsencode(kept["names"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    is_whole = len(made.names) == len(made.labels) and len(counts) == len(made.classes) and set(made.classes) <= set(directories)
    return made if is_whole else None
