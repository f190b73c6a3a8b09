"""Where a user's own packages are. Nothing is imported."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from launcher.errors import ConfigError
from launcher.trust import owner

OURS = ("launcher", "models", "data")
INSTALLED = ("site-packages", "dist-packages")


def places(top: str, last: Sequence[str] = ()) -> list[Path]:
    """Where a package's directories, or a module's file, are; none where it is installed, or nowhere.

    `last` is looked at behind sys.path.
    """
    standard = Path(os.__file__).resolve().parent
    found = _all_places(top, last)
    return [place for place in found if standard not in place.parents and not {*place.parts}.intersection(INSTALLED)]


def is_installed(top: str) -> bool:
    """Whether it is there, and not in a directory of the user's own."""
    return bool(_all_places(top)) and not places(top)


def take_in(trust: Sequence[str]) -> None:
    """Look for modules in the working directory too, behind all else, where a package lies there that `trust` names and that is nowhere
    else: `./queue.py` and `./numpy.py` stay what they are, and what it imports beside itself is found. Raises ConfigError where that
    directory may be another's.
    """
    for top in dict.fromkeys(name.split(".")[0] for name in trust):
        if not _all_places(top) and (found := _located(in_working_directory(top))):
            here = str(Path.cwd())
            if why := next(filter(None, (owner.fault(place, at_work=True) for place in (Path(here), *found))), ""):
                raise ConfigError(
                    f"trust: {top} is here, in {here}, which may be another's: {why}; take the right to write from others (chmod go-w), or "
                    f"type {owner.WAY_OUT}={here} before the command if you know all who write there"
                )
            sys.path.append(here)


def in_working_directory(top: str) -> ModuleSpec | None:
    """What could be taken in from there."""
    return PathFinder.find_spec(top, [""])


def _all_places(top: str, last: Sequence[str] = ()) -> list[Path]:
    try:
        spec = PathFinder.find_spec(top, [*sys.path, *last])
        spec = spec or importlib.util.find_spec(top)  # knows what `pip install -e` hooks in
    except (ImportError, ValueError):
        return []
    return [place.resolve() for place in _located(spec)]


def _located(spec: ModuleSpec | None) -> list[Path]:
    locations = spec.submodule_search_locations if spec else ()
    if spec and locations is None:
        locations = [spec.origin] if spec.origin and spec.has_location else []
    return [Path(place) for place in locations or ()]
