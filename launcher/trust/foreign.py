"""What belongs to somebody else: on a shared disk a path is typed out of a message, and its owner let nobody in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from launcher.errors import RunError
from launcher.trust import owner, reading


def check(path: Path) -> None:
    """Raises PermissionError where the run or the sweep at `path` may not be read; whatever else is wrong with it is others' to say."""
    for name in ("plan.json", "sweep.json"):
        try:
            with reading.opened(path / name):
                pass
        except PermissionError:
            raise
        except OSError:
            continue


def refused(error: PermissionError) -> RunError:
    """The one line for it."""
    if error.filename is None:
        return RunError(f"{error.strerror or error}; LAUNCHER_DEBUG=1 shows where")
    path = Path(os.fsdecode(error.filename)).absolute()
    for place in (path, *path.parents):
        with suppress(OSError):
            uid = place.stat().st_uid
            if uid == os.geteuid():
                return RunError(f"{path}: {error.strerror}; {place} is yours: chmod u+rwX it, or type another path")
            return RunError(
                f"{path}: {error.strerror}; {place} belongs to {owner.name_of(uid)}: ask for it to be made readable, or type another path"
            )
    return RunError(f"{path}: {error.strerror}; type another path")
