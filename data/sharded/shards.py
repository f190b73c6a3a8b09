"""Which files are the shards of each split, and their bytes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")
Doubt = Callable[[str, str], None]
"""Told what is damaged, and what to do about it."""

_SPAN = re.compile(r"\{(\d+)\.\.(\d+)\}")
_COUNTED = re.compile(r"(.*?)(\d+)-of-(\d+).*", re.DOTALL)
"""As Hugging Face names shards, from 0, and others, from 1; what is behind may be a hash."""
_MOST_NAMES = 1_000_000
_PAUSES_SECONDS = (0.2, 1.0)
"""Before a read is tried again: what a mounted store fails with is most often over by then."""
_OPEN = 64


def matching(root: Path, patterns: Mapping[str, str | None], doubt: Doubt) -> dict[str, list[str]]:
    """The shards of each split that there is, by their names below the root, in their order. `doubt` hears of those that a pattern names
    and that are not there. Raises ValueError, FileNotFoundError."""
    found: dict[str, list[str]] = {}
    for split, pattern in patterns.items():
        if pattern and (Path(pattern).is_absolute() or ".." in Path(pattern).parts):
            raise ValueError(f"data.{split}={pattern}: it is not below data.root={root}; type the folder above all as data.root=")
        names = _names(root, split, pattern, doubt) if pattern else []
        for other, others in found.items():
            if twice := sorted(set(names) & set(others)):
                raise ValueError(
                    f"data.{split}={pattern}: {twice[0]} is one of data.{other}={patterns[other]} too; type patterns that have no "
                    f"shard in common, or data.{split}=null"
                )
        if names:
            found[split] = names
    if "train" not in found:
        raise FileNotFoundError(
            f"data.root={root}: no file there is a {patterns['train']}; type data.train= with the pattern of the shards' names"
        )
    return found


def _names(root: Path, split: str, pattern: str, doubt: Doubt) -> list[str]:
    """Raises ValueError where it is no pattern, and what `doubt` does."""
    try:
        found = [(each, [path for path in root.glob(each) if not path.is_dir()]) for each in _expanded(pattern)]
    except (ValueError, NotImplementedError) as error:  # pathlib's, of `**a` and of what begins at the root
        raise ValueError(f"data.{split}={pattern}: no pattern of names ({error}); type one like {split}-*") from error
    names: set[str] = set()
    for each, matched in found:
        if not matched and each != pattern:
            doubt(f"{each}: there is no such file", f"bring it back, or type a pattern that does not name it instead of {pattern}")
        for path in matched:
            if path.is_file():
                names.add(path.relative_to(root).as_posix())
            else:
                doubt(f"{path.relative_to(root)}: it is a link to nothing, or no file", "bring it back")
    if not _SPAN.search(pattern):
        for missing in _missing(names):
            doubt(f"{missing}: there is no such file", f"bring it back, or name those that there are: data.{split}=")
    return sorted(names)


def _missing(names: Iterable[str]) -> Iterator[str]:
    """Those of which others say in their own names that they are there, without what follows the count."""
    there: dict[tuple[str, int, str], set[int]] = {}
    for name in names:
        if match := _COUNTED.fullmatch(name):
            there.setdefault((match[1], len(match[2]), match[3]), set()).add(int(match[2]))
    for (before, digits, said), numbers in there.items():
        count = int(said)
        begin = int(0 not in numbers and count in numbers)
        if count <= _MOST_NAMES and max(numbers) < begin + count:
            for number in sorted({*range(begin, begin + count)} - numbers):
                yield f"{before}{number:0{digits}d}-of-{said}"


def _expanded(pattern: str) -> Iterator[str]:
    """Of `train-{000..127}.tar` each name, as WebDataset writes them."""
    if not (match := _SPAN.search(pattern)):
        yield pattern
        return
    first, last = int(match[1]), int(match[2])
    if not 0 <= last - first < _MOST_NAMES:
        raise ValueError(f"{match[0]} is no span")
    for number in range(first, last + 1):
        yield from _expanded(f"{pattern[: match.start()]}{number:0{len(match[1])}d}{pattern[match.end() :]}")


def tried(read: Callable[[], Found]) -> Found:
    """What it returns, tried three times. Raises OSError where it cannot, at once where there is no such file."""
    for pause in _PAUSES_SECONDS:
        try:
            return read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise
        except OSError:
            time.sleep(pause)
    return read()


class Reader:
    """Parts of files, by their numbers. Each process has its own."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}

    def read(self, file: int, path: Path, offset: int, size: int) -> bytes:
        """Raises ValueError where the file is gone or ends before that; OSError where it cannot be read, tried three times."""
        try:
            raw = tried(lambda: self._once(file, path, offset, size))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError("is gone: there is no such file") from error
        if len(raw) < size:
            raise ValueError(f"is cut: {len(raw)} of {size} bytes")
        return raw

    def _once(self, file: int, path: Path, offset: int, size: int) -> bytes:
        try:
            return _whole(self._descriptor(file, path), offset, size)
        except OSError:
            self._close(file)  # of a handle that is stale nothing is read any more
            raise

    def _descriptor(self, file: int, path: Path) -> int:
        if file not in self._open:
            if len(self._open) >= _OPEN:
                self._close(next(iter(self._open)))
            self._open[file] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[file]

    def _close(self, file: int) -> None:
        if (descriptor := self._open.pop(file, None)) is not None:
            os.close(descriptor)


def _whole(descriptor: int, offset: int, size: int) -> bytes:
    """Fewer bytes only where the file ends."""
    raw = os.pread(descriptor, size, offset)
    while len(raw) < size and (more := os.pread(descriptor, size - len(raw), offset + len(raw))):
        raw += more
    return raw
