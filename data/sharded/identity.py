"""By what a shard is known again: its size and when it was last written, how it begins, and some of what lies in it.

To read all of a shard costs as much as an epoch. Blocks of it, spread over the whole, tell one that was made anew from a copy of the old
one, whatever its size and its time; a few bytes that were changed between them they do not tell.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

_HEAD = 512
"""Bytes by which a shard that is shorter now is known for the same one, cut: the first header of a tar."""
_BLOCKS, _BLOCK = 8, 4096


def written(path: Path) -> tuple[int, int] | None:
    """Bytes, and when it was last written; None where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def head(path: Path) -> int:
    """A hash of how it begins; 0 where it has not so much."""
    with path.open("rb") as file:
        raw = file.read(_HEAD)
    return _number(hashlib.sha256(raw)) if len(raw) == _HEAD else 0


def content(path: Path, whole: bool) -> int:
    """A hash of some blocks of it, the first and the last among them; `whole`: of all."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = path.stat().st_size
        if whole or size <= _BLOCKS * _BLOCK:
            while piece := file.read(1 << 20):
                digest.update(piece)
        else:
            for number in range(_BLOCKS):
                file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return _number(digest)


def is_cut(path: Path, then: int, begun: int) -> bool:
    """Whether it is shorter than `then` bytes and the same as far as it goes, by the `head` that it had."""
    now = written(path)
    return now is not None and now[0] < then and head(path) in (0, begun)


def _number(digest: hashlib._Hash) -> int:
    return int.from_bytes(digest.digest()[:7], "little")
