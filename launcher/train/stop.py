"""Stopping: signals, the STOP file and the end of the job's time set a reason; a step boundary acts on it, on all ranks at once."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from types import FrameType

from launcher.claim import Claim
from launcher.train.ranks import Ranks

LOOK_EVERY_SECONDS = 0.5
"""Between two looks for the STOP file: on a network file system one look can cost a millisecond."""

REASONS = ("", "deadline", "file", "signal")
"""Why to stop, the strongest last: the ranks agree on the largest number. Empty: go on."""


class Deadline:
    """When the job's time is up, and how much earlier to stop: what a save and a step have been seen to take, and some air."""

    AIR_SECONDS = 10.0

    def __init__(self, end: float | None, trained: Path | None = None) -> None:
        self._end = end
        """Seconds since the epoch, None where nothing ends the job."""
        self._trained = trained
        """Where to write down how long this attempt has trained; None: nobody asks."""
        self._slowest_save = 0.0
        self._slowest_step = 0.0
        self._first: float | None = None
        """When the first step was done. What came before (decoding, restoring, compiling) comes once, and says nothing of a step."""
        self._last = 0.0

    def saved(self, seconds: float) -> None:
        self._slowest_save = max(self._slowest_save, seconds)

    def is_near(self) -> bool:
        """Call once per step, so that the time between two calls is what one more may take, evaluation included."""
        now = time.monotonic()
        if self._first is None:
            self._first = now
        else:
            self._slowest_step = max(self._slowest_step, now - self._last)
        self._last = now
        return self._end is not None and time.time() + self.lead >= self._end

    def note(self) -> None:
        """Write down the seconds trained so far, at each save: the batch shell ends a job of which nothing but start-up is left."""
        if self._trained is not None and self._first is not None:
            with contextlib.suppress(OSError):
                self._trained.write_text(f"{time.monotonic() - self._first:.0f}\n", encoding="utf-8")

    @property
    def lead(self) -> float:
        """Seconds before the end at which to stop: one save may be under way and one comes after it, both slower than usual, for then all
        jobs save."""
        return 3 * self._slowest_save + self._slowest_step + self.AIR_SECONDS


class Stopper:
    """Whether to stop here. TERM, INT, USR1 and USR2 to a worker mean the same as the STOP file."""

    def __init__(self, file: Path, ranks: Ranks, claim: Claim, deadline: Deadline) -> None:
        self.deadline = deadline
        self._file = file
        self._ranks = ranks
        self._claim = claim
        self._signalled = False
        self._reason = 0
        self._next_look = 0.0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    def look(self) -> int:
        """Call once per step: the number in REASONS of what this rank knows. Raises RunError where a newer attempt has taken over."""
        if self._signalled:
            return REASONS.index("signal")
        if not self._ranks.is_first:
            return 0
        if self.deadline.is_near():
            self._reason = max(self._reason, REASONS.index("deadline"))
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY_SECONDS
            self._claim.check()
            if self._file.exists():
                self._reason = REASONS.index("file")
        return self._reason
