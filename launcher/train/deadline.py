"""The end of a job's time, and how much earlier to stop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from launcher.node.pulse import EVALUATION, SAVE
from launcher.trust import reading, writing


class Slowest:
    """Of what comes again and again. The first time may compile, or fill caches: it counts only until there is a second."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._seen = 0

    def add(self, seconds: float) -> None:
        self._seen += 1
        self.seconds = seconds if self._seen < 3 else max(self.seconds, seconds)

    def expect(self, seconds: float) -> None:
        """What an earlier attempt has seen, until this one sees it."""
        if not self._seen:
            self.seconds = seconds


class Deadline:
    """When the job's time is up, and how much earlier to stop: what is still to come has been seen to take, and some air."""

    AIR_SECONDS = 10.0

    def __init__(self, end: float | None, trained: Path | None = None) -> None:
        self._end = end
        """Seconds since the epoch, None where nothing ends the job."""
        self._file = trained
        """Where to write down how long this attempt has trained; None: nobody asks."""
        self.evaluations = Slowest()
        self._steps, self._after = Slowest(), Slowest()
        """Steps as they are, and those after an evaluation, which may compile again."""
        self._slowest_save = 0.0
        self._last: tuple[int, float] | None = None
        """Step and time of the last call; None before the first step is done. What came before (decoding, restoring, compiling) comes once,
        and says nothing of a step."""
        self._outside = dict.fromkeys((EVALUATION, SAVE), 0.0)
        """Since then."""
        self._trained = _before(trained)

    def saved(self, seconds: float) -> None:
        self._slowest_save = max(self._slowest_save, seconds)

    @contextlib.contextmanager
    def outside(self, phase: int) -> Iterator[None]:
        """What happens in this context is no part of a step: EVALUATION or SAVE."""
        began = time.monotonic()
        yield
        spent = time.monotonic() - began
        self._outside[phase] += spent
        if phase == EVALUATION:
            self.evaluations.add(spent)

    def is_near(self, step: int, reach: int, evaluations: int = 0) -> bool:
        """`reach`: how many more steps there are before anything comes of the next call, if the end is not near by this one;
        `evaluations`: how many there will be until then."""
        now = time.monotonic()
        if self._last is not None and step > self._last[0]:
            spent = now - self._last[1]
            kind = self._after if self._outside[EVALUATION] else self._steps
            kind.add((spent - sum(self._outside.values())) / (step - self._last[0]))
            self._trained += spent - self._outside[SAVE]
        self._last = step, now
        self._outside = dict.fromkeys(self._outside, 0.0)
        return self._end is not None and time.time() + self.lead(reach, evaluations) >= self._end

    def lead(self, reach: int, evaluations: int = 0) -> float:
        """Seconds before the end at which to stop: one save may be under way and one comes after it, both slower than usual, for then all
        jobs save."""
        steps = reach * self._steps.seconds
        if evaluations:
            steps += evaluations * self.evaluations.seconds + max(0.0, self._after.seconds - self._steps.seconds)
        return 3 * self._slowest_save + steps + self.AIR_SECONDS

    def note(self) -> None:
        """Write down the seconds from the first step to this one, at each save, and those of the slowest: launcher/verdict/headway.py
        judges by them whether attempts get the run anywhere."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                writing.over(self._file, f"{self._trained:.1f} {self._steps.seconds:.2f}\n")


def _before(trained: Path | None) -> float:
    """Of an earlier start within this attempt: torchrun has started the processes again."""
    try:
        return float(reading.first_line(trained).split()[0]) if trained is not None else 0.0
    except (OSError, ValueError, IndexError):
        return 0.0
