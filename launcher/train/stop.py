"""Stopping: signals, the STOP file and the end of the job's time set a reason; a step boundary acts on it, on all ranks at once."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

from launcher.rundir.claim import Claim
from launcher.train.deadline import Deadline
from launcher.train.world.ranks import Ranks

LOOK_EVERY_SECONDS = 0.5
"""Between two looks for the STOP file: on a network file system one look can cost a millisecond."""

REASONS = ("", "seconds", "deadline", "file", "signal")
"""Why to stop, the strongest last: the ranks agree on the largest number. Empty: go on. After `seconds` (train.seconds) the run is over;
after the others it can be resumed."""


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

    def reason(self, step: int, reach: int, evaluations: int) -> int:
        """The number in REASONS of what this rank knows; called with what Deadline.is_near takes. Raises RunError where a newer attempt
        has taken over."""
        if self._signalled:
            return REASONS.index("signal")
        if not self._ranks.is_first:
            return 0
        if self.deadline.is_near(step, reach, evaluations):
            self._reason = max(self._reason, REASONS.index("deadline"))
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK_EVERY_SECONDS
            self._claim.check()
            if self._file.exists():
                self._reason = REASONS.index("file")
        return self._reason
