"""Where the time goes: in steps, in waiting for data, outside (evaluation, saving).

It has no clock of its own in a step: the watch reads one at the end of each part (launcher/train/watch.py), and what it read is told here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

from launcher.node.pulse import EVALUATION, SAVE
from launcher.train.checkpoint.stored import TrainState


class Lap(NamedTuple):
    """Seconds since the last lap."""

    steps: float
    updates: int
    """Made in these seconds, by this attempt: what is logged with them may have begun in the one before."""
    waited: float
    """Of these, for data."""
    until_ready: float
    """Of these, before this rank first had to wait for the others."""


class Clock:
    """By time.monotonic, never the device's: nothing here waits for a GPU."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from now on: what was not brought up is forgotten."""
        self._began = self._lap = time.monotonic()
        self._waited = self._waited_lap = self._ready_lap = self._outside_lap = 0.0
        self._updates_lap = 0
        self._outside = {EVALUATION: 0.0, SAVE: 0.0}
        self.asked = self._began
        """When the step under way first asked for data."""

    def waited(self, asked: float, given: float) -> None:
        """For a micro-batch."""
        self._waited_lap += given - asked

    def ready(self, now: float) -> None:
        """The first backward pass of a step begins: from here on ranks wait for each other."""
        self._ready_lap += now - self.asked
        self._updates_lap += 1

    @contextlib.contextmanager
    def outside(self, phase: int) -> Iterator[None]:
        """What happens in this context is no part of a step: EVALUATION or SAVE."""
        began = time.monotonic()
        yield
        spent = time.monotonic() - began
        self._outside[phase] += spent
        self._outside_lap += spent

    def lap(self) -> Lap:
        now = time.monotonic()
        lap = Lap(now - self._lap - self._outside_lap, self._updates_lap, self._waited_lap, self._ready_lap)
        self._waited += lap.waited
        self._lap, self._updates_lap, self._waited_lap, self._ready_lap, self._outside_lap = now, 0, 0.0, 0.0, 0.0
        return lap

    def so_far(self, state: TrainState) -> float:
        """Seconds of all attempts until now."""
        return state.seconds + time.monotonic() - self._began

    def bring_up(self, state: TrainState) -> None:
        """Add what has passed since the last call to the state's own seconds."""
        now = time.monotonic()
        state.seconds += now - self._began
        state.train_seconds += max(0.0, now - self._began - sum(self._outside.values()))
        state.data_seconds += self._waited
        state.evaluation_seconds += self._outside[EVALUATION]
        state.save_seconds += self._outside[SAVE]
        self._began, self._waited = now, 0.0
        self._outside = {EVALUATION: 0.0, SAVE: 0.0}
