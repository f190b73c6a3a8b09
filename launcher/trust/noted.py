"""What this user's commands leave for later ones: a file of words in the state directory, one a line. Never in the way of a run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from launcher.trust import reading, writing

TRUSTED = "trusted"
"""The packages that this user's commands have been told to trust."""


def note(name: str, word: str) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        file = _place(name)
        if word not in words(name):
            file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(writing.to_append(file), "a", encoding="utf-8", errors="surrogateescape") as lines:
                lines.write(f"{word}\n")


def words(name: str) -> list[str]:
    try:
        return reading.whole(_place(name)).decode("utf-8", "surrogateescape").splitlines()
    except (OSError, RuntimeError):  # the latter where there is no home
        return []


def _place(name: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "launcher" / name
