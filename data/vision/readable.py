"""Which pictures can be read. All are looked at once, and what was found is noted in the cache (data.max_corrupt above 0); or only as
many as a moment allows, before a run begins that stops at the first.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.store import cache as kept
from data.store.corrupt import Corrupt
from data.store.files import notice, written
from data.vision.picture import Picture
from data.vision.pictures import Pictures

GLANCE_SECONDS = 1.0
"""For each of two looks: a small folder is looked through, of a large one some are."""
_CHUNK = 4096
_TYPES: dict[str, type[np.generic]] = dict.fromkeys(("train", "val", "test"), np.int64)

Look = Callable[[int], None]
"""At the picture in that place. Raises ValueError in one line where it is none, OSError where the machine fails, which is not its fault."""
Folders = Mapping[str, tuple[Path, Pictures]]
"""By part."""


def readable(parts: Mapping[str, tuple[int, Look]], corrupt: Corrupt, cache: Path, key: str, where: object) -> dict[str, NDArray[np.int64]]:
    """Of each part, with how many there are: the places of those that stay. Raises ValueError where more cannot be read than may be left
    out, OSError. `key`: another one where the pictures are others."""

    def build(_: int, arrays: kept.Arrays) -> Mapping[str, object]:
        notice(f"data: reading all pictures in {where} once, for those that cannot be read")
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # a decoder lets other threads work
            for part, (count, look) in parts.items():
                arrays.append(part, np.array([*_staying(count, look, corrupt, pool)], np.int64))
        return {"corrupt": corrupt.found}

    (made,) = kept.open_or_build(cache, ["pictures-readable"], key, _TYPES, build, f"reading the pictures in {where}")
    corrupt.accept(made.manifest["corrupt"])
    for part, places in made.arrays.items():
        if not len(places):
            raise ValueError(f"data: no picture of {part} in {where} can be read: {corrupt.found[0]}")
    return made.arrays


def _staying(count: int, look: Look, corrupt: Corrupt, pool: ThreadPoolExecutor) -> Iterator[int]:
    for begin in range(0, count, _CHUNK):
        chunk = range(begin, min(count, begin + _CHUNK))
        for place, error in zip(chunk, pool.map(lambda place: _fault(look, place), chunk), strict=True):
            if error is None:
                yield place
            else:
                corrupt.leave_out(error)


def _fault(look: Look, place: int) -> ValueError | None:
    try:
        look(place)
    except ValueError as error:
        return error
    return None


def in_folders(folders: Folders, picture: Picture, corrupt: Corrupt, cache: Path) -> dict[str, NDArray[np.int64]]:
    """As `readable` has it. What is written anew is looked at anew."""
    digest = hashlib.sha256(picture.decoder.encode())
    for part, (below, listed) in folders.items():
        digest.update(f"\0{part} {below} {listed.fingerprint}".encode(errors="surrogateescape"))
        for name in listed.names:
            digest.update(f"{written(below / name)}\n".encode())
    parts = {part: (len(listed.names), _look(below, listed, picture)) for part, (below, listed) in folders.items()}
    return readable(parts, corrupt, cache, digest.hexdigest(), next(iter(folders.values()))[0])


def _look(below: Path, listed: Pictures, picture: Picture) -> Look:
    def look(place: int) -> None:
        try:
            picture.examine(below / listed.names[place])
        except ValueError as error:
            raise said(below, listed.names[place], error) from error

    return look


def said(below: Path, name: str, error: ValueError) -> ValueError:
    """With the picture's name."""
    return ValueError(f"data.root={below}: {name} {error}; take it away")


def glance(folders: Folders, picture: Picture) -> None:
    """Raises ValueError for a picture that cannot be read, where it is met in time: at all, whether they are empty, and then at what is in
    them. They come in an order of its own, for what was cut off lies at an end."""
    for below, listed in folders.values():
        look = _look(below, listed, picture)

        def is_there(place: int, below: Path = below, listed: Pictures = listed, look: Look = look) -> None:
            if (found := written(below / listed.names[place])) is None or not found[0]:
                look(place)

        some(len(listed.names), is_there)
        some(len(listed.names), look)


def some(count: int, look: Look) -> None:
    """As many as a moment allows, from all over. Raises what `look` raises."""
    end = time.monotonic() + GLANCE_SECONDS
    step = _stride(count)
    for number in range(count):
        look(number * step % count)
        if time.monotonic() > end:
            break


def _stride(count: int) -> int:
    """That comes by each place once."""
    return next((step for step in range(int(0.618 * count) or 1, count) if np.gcd(step, count) == 1), 1)
