"""The code of a run on this machine, which is not copied: a hash of each package, so that an edit between stop and resume is named."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from launcher.code import no_code, packages, snapshot

Hashes = tuple[tuple[str, str], ...]
"""(package, sha256 of its source), launcher, models and data first."""


def of_packages(project: Path, trust: Sequence[str], directory: Path) -> Hashes:
    """Of what will run: the three packages in `project`, and those in `trust`, as the processes find them from `directory`.

    What is installed is left out, as from the copy of a batch job, and what is nowhere.
    """
    own = dict.fromkeys(name.split(".")[0] for name in trust)
    places = {name: [project / name] for name in snapshot.PACKAGES}
    places |= {name: packages.places(name, (str(directory),)) for name in own if name not in snapshot.PACKAGES}
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
        for path in [place] if place.is_file() else sorted(_sources(place)):
            digest.update(b"%b\0" % os.fsencode(path.name if path == place else path.relative_to(place)))
            with contextlib.suppress(OSError):  # what cannot be read cannot be run
                digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not no_code.is_no_code(Path(place, name))]
        yield from (Path(place, name) for name in files if name.endswith(".py"))
