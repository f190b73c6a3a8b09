"""error.json: the first failing rank of an attempt, left by itself or, where it cannot, by who watched it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from launcher.errors import RunError
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.trust import writing
from launcher.trust.secret import mask


def leave(run: RunDir, attempt: int, restart: int, outcome: str | None, **fields: Any) -> bool:
    """Write it unless somebody has: what fails next only fails because of that. Returns whether it is ours.

    `outcome`: the word for the batch shell, None where it is to find out itself. `fields`: rank, host, step, exception, message,
    exit_code, traceback (None for what is the user's to read).
    """
    name = name_of(restart)
    place = run.attempt(attempt)
    spare = place / f".{name}.{os.getpid()}.{fields['rank']}"
    try:
        with os.fdopen(writing.new(spare), "w", encoding="utf-8") as file:
            json.dump(mask.everywhere({"time": time.time(), **fields}), file, indent=2)
        _put(spare, place / name)
        if outcome is not None:
            write_atomic(run.outcome(attempt), f"{outcome}\n")
    except (OSError, RunError):
        return False  # another was first, or the disk is full; the logs have it
    finally:
        spare.unlink(missing_ok=True)
    return True


def name_of(restart: int) -> str:
    return "error.json" if restart == 0 else f"error.{restart}.json"


def _put(spare: Path, place: Path) -> None:
    """By a name that must not be there yet: the first one stays. Raises FileExistsError, or another OSError."""
    try:
        os.link(spare, place)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the name first, and for a moment no words below it
        os.close(os.open(place, os.O_CREAT | os.O_EXCL, 0o600))
        spare.replace(place)
