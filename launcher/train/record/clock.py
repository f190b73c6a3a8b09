"""Where the time goes: in steps, in waiting for data, outside (evaluation, saving)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from launcher.node.pulse import EVALUATION, SAVE
from launcher.train.checkpoint.stored import TrainState


class Lap(NamedTuple):
    """Seconds since the last lap."""

    steps: float
    updates: int
    """Made in these seconds, by this attempt: what is logged with them may have begun in the one before."""
    waited: float
    """Of these, for data."""
    own: float
    """Of these, before this rank first had to wait for the others."""


class Clock:
    """Reads the clock twice a step, and never the device's: nothing here waits for a GPU."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from now on: what was not brought up is forgotten."""
        self._began = self._lap = time.perf_counter()
        self._waited = self._waited_lap = self._own_lap = self._outside_lap = 0.0
        self._asked = self._began
        self._updates_lap = 0
        self._outside = {EVALUATION: 0.0, SAVE: 0.0}

    def watch(self, updates: Iterator[Any]) -> Iterator[Any]:
        """Pass updates on, counting the wait for each."""
        while True:
            self._asked = time.perf_counter()
            update = next(updates, None)
            self._waited_lap += time.perf_counter() - self._asked
            if update is None:
                return
            self._updates_lap += 1
            yield update

    @contextlib.contextmanager
    def outside(self, phase: int) -> Iterator[None]:
        """What happens in this context is no part of a step: EVALUATION or SAVE."""
        began = time.perf_counter()
        yield
        spent = time.perf_counter() - began
        self._outside[phase] += spent
        self._outside_lap += spent

    def own(self, ready: float) -> None:
        """From asking for data until `ready` this rank waited for nobody."""
        self._own_lap += ready - self._asked

    def lap(self) -> Lap:
        now = time.perf_counter()
        lap = Lap(now - self._lap - self._outside_lap, self._updates_lap, self._waited_lap, self._own_lap)
        self._waited += lap.waited
        self._lap, self._updates_lap, self._waited_lap, self._own_lap, self._outside_lap = now, 0, 0.0, 0.0, 0.0
        return lap

    def bring_up(self, state: TrainState) -> None:
        """Add what has passed since the last call to the state's own seconds."""
        now = time.perf_counter()
        state.seconds += now - self._began
        state.train_seconds += max(0.0, now - self._began - sum(self._outside.values()))
        state.data_seconds += self._waited
        state.evaluation_seconds += self._outside[EVALUATION]
        state.save_seconds += self._outside[SAVE]
        self._began, self._waited = now, 0.0
        self._outside = {EVALUATION: 0.0, SAVE: 0.0}
