"""What all ranks know at a step boundary: a few small numbers, each the maximum over the ranks."""

from __future__ import annotations

import time
from typing import Any

import torch

from launcher.train.world.ranks import Ranks

PERIOD_SECONDS = 0.02
"""Between two exchanges, where steps take less: what is asked (whether to stop, to save) need not be known sooner."""
MOST_STEPS = 20
"""Between two exchanges, however short steps have been: the next ones may be longer."""


class Agreement:
    """One message every so many steps, on a group of its own. The answer of one is collected at the next, so that no step waits for it.

    How many steps lie between two the ranks agree on in the same message, by the slowest rank's steps: all ask at the same step.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._pending: tuple[Any, torch.Tensor] | None = None
        self._every = 1
        self._next = 0
        self._asked: tuple[int, float] | None = None
        """The step and the time of the last exchange."""

    @property
    def reach(self) -> int:
        """Steps from one exchange to that at which what is said there has come of it."""
        return self._every if self._ranks.size == 1 else 2 * self._every

    def is_due(self, step: int) -> bool:
        return step >= self._next

    def exchange(self, step: int, *values: int | bool) -> list[int]:
        """Call at each step that `is_due`, on every rank, with as many values each time. Returns the maxima, the same on all ranks at the
        same step: of these values with one process, else of those of the exchange before."""
        now = time.monotonic()
        micros = round(1e6 * (now - self._asked[1]) / (step - self._asked[0])) if self._asked and step > self._asked[0] else 2**30
        self._asked = step, now
        *answer, slowest = self._maxima(*values, min(micros, 2**30))
        self._every = max(1, min(MOST_STEPS, 2 * self._every, int(1e6 * PERIOD_SECONDS) // max(1, slowest))) if slowest else 1
        self._next = step + self._every
        return answer

    def _maxima(self, *values: int | bool) -> list[int]:
        if self._ranks.size == 1:
            return [int(value) for value in values]
        answer = self._collect() or [0] * len(values)
        mine = torch.tensor(values, dtype=torch.int32)
        self._pending = (self._ranks.begin_max(mine), mine)
        return answer

    def settle(self) -> list[int]:
        """Wait for the message under way: once more at the end, and where training goes back, so that none is left; the next step asks."""
        self._every, self._next, self._asked = 1, 0, None
        return self._collect()

    def _collect(self) -> list[int]:
        if self._pending is None:
            return []
        work, values = self._pending
        work.wait()
        self._pending = None
        return values.tolist()
