"""A site's prelude: the shell lines that a batch job reads before anything else, and what of its neighbours it needs.

The run keeps a copy, as it keeps the code: a job that requeues for weeks reads what was submitted. What the prelude names and has beside
itself (`. "$(dirname "${BASH_SOURCE[0]}")/gpu.sh"`, `source ./gpu.sh`) is copied with it, in the same places; it is read from there.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from launcher.code import no_secret
from launcher.errors import ConfigError
from launcher.rundir import rundir
from launcher.trust import program

_WORD = re.compile(r"[\w.+@%~*?-]+(?:/[\w.+@%~*?-]+)*")
"""What may be a path, or the end of one, in a shell's text."""
_MOST_BYTES = 2**20
"""Of one file. A shell file is small; what a prelude names may be anything."""
_SECONDS = 10.0


def check(path: str) -> None:
    """Raises ConfigError for a prelude that is no file, or that bash cannot read: the job would find out after its wait."""
    if not Path(path).is_file():
        raise ConfigError(f"cluster.prelude={path} is no file; type the path of a shell script, or null")
    argv = [shutil.which("bash") or "/bin/bash", "-n", "--", path]
    try:
        done = program.hear(argv, _SECONDS)
    except (TimeoutError, program.TooMuchError) as error:
        raise ConfigError(f"cluster.prelude={path}: bash {error or f'did not read it within {_SECONDS:.0f} s'}; type another") from error
    if done.status:
        words = done.err.decode(errors="replace").splitlines() or ["no word why"]
        raise ConfigError(f"cluster.prelude: bash cannot read it: {words[0]}; correct that line")


def with_neighbours(path: Path) -> tuple[dict[str, Path], list[str]]:
    """The prelude and every file below its directory that it, or a file so found, names: by their names relative to that directory. And
    the names of others that it names beside itself and that are not copied: above that directory, or too large for a shell file."""
    found, stays = {path.name: path}, list[str]()
    left = [path]
    while left:
        for word in dict.fromkeys(_WORD.findall(rundir.read_text(left.pop()))):
            name = word.removeprefix("./")
            for place in _places(path.parent, name):
                above = ".." in name.split("/")
                inside = name if above else place.relative_to(path.parent).as_posix()
                if no_secret.is_secret_name(inside):
                    _not_copied(place)
                elif above or place.stat().st_size > _MOST_BYTES:
                    stays.append(inside)
                elif inside not in found:
                    found[inside] = place
                    left.append(place)
    return found, list(dict.fromkeys(stays))


def _places(folder: Path, name: str) -> list[Path]:
    """The files that are meant; `lib/*.sh` means several."""
    if any(mark in name for mark in "*?") and ".." not in name.split("/"):
        return [place for place in sorted(folder.glob(name)) if place.is_file()] if name.strip("*?./") else []
    return [folder / name] if (folder / name).is_file() else []


def _not_copied(place: Path) -> None:
    if place.is_file():
        print(
            f"launcher: warning: cluster.prelude: {place} is not copied with it, for it may hold secrets; have the prelude name it by its "
            "whole path",
            file=sys.stderr,
        )


def copy(path: Path, folder: Path) -> None:
    """Raises RunError where the copy cannot be written, or a file is no text."""
    found, stays = with_neighbours(path)
    for name, source in found.items():
        target = folder / name
        target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        rundir.write_atomic(target, rundir.read_text(source))
    if stays:
        print(
            f"launcher: warning: cluster.prelude={path} names {', '.join(stays[:5])}, which is not copied, so the job will not find it; "
            "move it beside the prelude, or name it by its whole path",
            file=sys.stderr,
        )
