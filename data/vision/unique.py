"""Which pictures of a folder are not there before: their files compared by content, which is read once and noted in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.store import cache as kept
from data.store.duplicates import Duplicates
from data.store.files import notice, os_error, written
from data.vision.pictures import SUFFIXES, Pictures

_TYPES: dict[str, type[np.generic]] = dict.fromkeys(("train", "val", "test"), np.int64)


def unique(folders: Mapping[str, tuple[Path, Pictures]], duplicates: Duplicates, cache: Path) -> dict[str, NDArray[np.int64]]:
    """Of each part, with where its pictures lie: the places of those that stay. Raises ValueError where `duplicates` refuses one,
    OSError."""

    def build(_: int, arrays: kept.Arrays) -> Mapping[str, object]:
        notice(f"data: reading all pictures in {next(iter(folders.values()))[0]} once, for duplicates")
        for part, (below, listed) in folders.items():
            named = zip(listed.names, listed.labels.tolist(), strict=True)
            stay = [duplicates.is_new(_read(below / name), part, label, f"{below.name}/{name}") for name, label in named]
            arrays.append(part, np.flatnonzero(stay))
        return {"duplicates": duplicates.found}

    (made,) = kept.open_or_build(cache, ["pictures-unique"], _key(folders, duplicates), _TYPES, build, "looking for duplicates")
    duplicates.accept(made.manifest["duplicates"])
    return made.arrays


def _key(folders: Mapping[str, tuple[Path, Pictures]], duplicates: Duplicates) -> str:
    """Of names, sizes and times: what is written anew is read anew."""
    digest = hashlib.sha256(duplicates.policy.encode())
    for part, (below, listed) in folders.items():
        digest.update(f"\0{part} {below} {listed.fingerprint}".encode(errors="surrogateescape"))
        for name in listed.names:
            digest.update(f"{written(below / name)}\n".encode())
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise os_error(error.errno, f"data.root={path.parent}: {path.name} cannot be read ({error.strerror}); take it away") from error


def loose(places: list[Path]) -> list[Path]:
    """Pictures that lie in these folders themselves, where classes should."""
    found: list[Any] = [each for place in places for each in place.iterdir() if each.suffix.lower() in SUFFIXES and each.name[0] != "."]
    return sorted(each for each in found if each.is_file())
