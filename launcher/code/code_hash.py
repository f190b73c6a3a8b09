"""The code of a run on this machine, which is not copied: a hash of each package, so that an edit between stop and resume is named."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.code import no_code, packages

Hashes = tuple[tuple[str, str], ...]
"""(package, sha256 of its source), launcher, models and data first."""


def of_packages(project: Path, trust: Sequence[str], directory: Path) -> Hashes:
    """Of what will run: the three packages in `project`, and those in `trust`, as the processes find them from `directory`.

    What is installed is left out, as from the copy of a batch job, and what is nowhere.
    """
    own = dict.fromkeys(name.split(".")[0] for name in trust)
    places = {name: [project / name] for name in packages.OURS}
    places |= {name: packages.places(name, (str(directory),)) for name in own if name not in packages.OURS}
    return tuple((name, _digest(found)) for name, found in places.items() if found)


def of_all(hashes: Hashes) -> str:
    return hashlib.sha256(repr(hashes).encode()).hexdigest()


def changed(before: Hashes, now: Hashes) -> list[str]:
    """Packages that are another now. One that cannot be found from here is none: the processes will say so themselves."""
    known: Mapping[str, str] = dict(before)
    return [name for name, digest in now if known.get(name) != digest]


def _digest(places: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for place in places:
        files = [(place.name, str(place))] if place.is_file() else _sources(str(place))
        for name, path in files:
            digest.update(b"%b\0" % os.fsencode(name))
            with contextlib.suppress(OSError), open(path, "rb") as file:  # what cannot be read cannot be run
                digest.update(file.read())
    return digest.hexdigest()


def _sources(folder: str) -> list[tuple[str, str]]:
    """(name within the folder, path), folder by folder. Texts, for there are hundreds, and each run on this machine begins with this."""
    found: list[tuple[str, str]] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not no_code.is_no_code(Path(place, name))]
        paths = [os.path.join(place, name) for name in files if name.endswith(".py")]
        found += [(path[len(folder) + 1 :], path) for path in paths]
    return sorted(found, key=lambda names: names[0].split(os.sep))
