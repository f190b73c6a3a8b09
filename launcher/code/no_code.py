"""Directories that are never the code of a run, whatever git thinks of them: environments, caches, and runs with all that is in them.

They are known by what programs leave in them and not by where they are: a link to one, on the scratch of a cluster, is listed by git
although `.gitignore` has `.venv/`, and a runs_dir may have any name. A run that held other runs would grow with each of them.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from launcher.trust import traces

_NAMES = frozenset(("node_modules", "__pypackages__", "site-packages", "dist-packages", ".sweeps", ".git", "__pycache__"))
_MARKS = frozenset(("pyvenv.cfg", "conda-meta", "sweep.json", ".hydra", "multirun.yaml"))
"""One of them is enough: of virtualenv, of conda, of a sweep, of Hydra's own outputs."""
_DATA = re.compile(r"[\w.-]+-[0-9a-f]{16}-v\d+(\.lock)?|[\w.-]+-hub-[0-9a-f]{12}")
"""What data.cache holds: decoded arrays, the lock of who decodes them, and downloads."""
_PRINTED = r"events\.out\.tfevents\.|nohup\.out$"
_CACHE = b"Signature: 8a477f597d28d172789f06886806bc55"
"""How CACHEDIR.TAG begins (bford.info/cachedir)."""


def is_no_code(folder: Path) -> bool:
    """Whether `folder` is an environment, a cache, a run, a sweep or outputs of Hydra. A package never is, whatever else it holds."""
    if folder.name in _NAMES:
        return True
    try:
        names = set(os.listdir(folder))  # noqa: PTH208 (one call a directory: file systems of clusters are slow to stat)
    except OSError:
        return False
    if "__init__.py" in names:
        return False
    return bool(
        names & _MARKS
        or ({"bin", "lib"} <= names and (folder / "bin" / "activate").is_file())  # virtualenv before 20
        or ("CACHEDIR.TAG" in names and _begins(folder / "CACHEDIR.TAG", _CACHE))
        or any(map(_DATA.fullmatch, names))
        or _is_run(folder, names)
    )


def _is_run(folder: Path, names: set[str]) -> bool:
    """Also one that is being written, or never was to its end: the copy of the code comes first there and the plan last."""
    if "plan.json" in names and b'"run_dir"' in _head(folder / "plan.json"):
        return True
    if {"config.yaml", "job.sh"} <= names and names & {"plan.json", "attempts"}:
        return True
    copies = (name for name in names if name == "code" or name.startswith(".code."))
    return any((folder / name / "launcher" / "__init__.py").is_file() for name in copies)


def without(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of the names relative to `folder` that lie in no such directory below it, and are none."""
    known = {"": False}

    def left_out(place: str) -> bool:
        if place not in known:
            known[place] = left_out(place.rpartition("/")[0]) or is_no_code(folder / place)
        return known[place]

    kept = [name for name in names if not left_out(name.rstrip("/").rpartition("/")[0]) and not is_left_behind(name)]
    return [name for name in kept if not (name.endswith("/") and is_no_code(folder / name))]


def is_left_behind(name: str) -> bool:
    """Whether a file is no code by its name: the lock of a cache, TensorBoard's events, what a batch job or nohup printed."""
    last = name.rpartition("/")[2]
    return bool(_printed().match(last)) or (last.endswith(".lock") and bool(_DATA.fullmatch(last)))


@functools.cache
def _printed() -> re.Pattern[str]:
    return re.compile("|".join([_PRINTED, *traces.printed()]))


def is_behind(link: Path, project: Path) -> bool:
    """Whether the link leads to such a directory, or into a run: not the one that `project` itself is the code of."""
    real = Path(os.path.realpath(link))
    return is_no_code(real) or any(
        _is_run(place, set(os.listdir(place)))  # noqa: PTH208
        for place in real.parents
        if not project.is_relative_to(place) and os.access(place, os.R_OK | os.X_OK)
    )


def _begins(path: Path, signature: bytes) -> bool:
    return _head(path).startswith(signature)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""
