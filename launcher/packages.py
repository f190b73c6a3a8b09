"""Where a user's own packages are. Nothing is imported."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")


def places(top: str, first: Sequence[str] = ()) -> list[Path]:
    """Where a package's directories, or a module's file, are; none where it is installed, or nowhere.

    `first` is looked at before sys.path.
    """
    standard = Path(os.__file__).resolve().parent
    found = _all_places(top, first)
    return [place for place in found if standard not in place.parents and not {*place.parts}.intersection(INSTALLED)]


def is_installed(top: str) -> bool:
    """Whether it is there, and not in a directory of the user's own."""
    return bool(_all_places(top)) and not places(top)


def _all_places(top: str, first: Sequence[str] = ()) -> list[Path]:
    try:
        spec = PathFinder.find_spec(top, [*first, *sys.path])
        spec = spec or importlib.util.find_spec(top)  # knows what `pip install -e` hooks in
    except (ImportError, ValueError):
        return []
    locations = spec.submodule_search_locations if spec else ()
    if spec and locations is None:
        locations = [spec.origin] if spec.origin and spec.has_location else []
    return [Path(place).resolve() for place in locations or ()]
