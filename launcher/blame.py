"""error.json: the first failing rank of an attempt, left by itself or, where it cannot, by who watched it."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from launcher.errors import RunError
from launcher.rundir import RunDir, write_atomic


def leave(run: RunDir, attempt: int, restart: int, outcome: str | None, **fields: Any) -> bool:
    """Write it unless somebody has: what fails next only fails because of that. Returns whether it is ours.

    `outcome`: the word for the batch shell, None where it is to find out itself. `fields`: rank, host, step, exception, message,
    exit_code, traceback (None for what is the user's to read).
    """
    name = "error.json" if restart == 0 else f"error.{restart}.json"
    place = run.attempt(attempt)
    spare = place / f".{name}.{os.getpid()}.{fields['rank']}"
    try:
        spare.write_text(json.dumps({"time": time.time(), **fields}, indent=2), encoding="utf-8")
        os.link(spare, place / name)  # fails where it exists: the first one stays
        if outcome is not None:
            write_atomic(run.outcome(attempt), f"{outcome}\n")
    except (OSError, RunError):
        return False  # another was first, or the disk is full; the logs have it
    finally:
        spare.unlink(missing_ok=True)
    return True
