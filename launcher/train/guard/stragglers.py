"""A rank that is slower than the others, by name: everybody waits for it at every step.

Each rank measures its own part of a step, from asking for data to the first backward pass: after that it waits for the others. What a GPU
does meanwhile is not in it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

RATIO = 1.5
"""Its own part takes so many times the median of the other ranks'."""
SHARE = 0.2
"""And is longer by so much of a whole step: less is not worth a word."""


STEPS = 25
"""Over so many steps at least: a single one is delayed by anything."""


class Stragglers:
    """Says it once for each rank and attempt: the next one may have other nodes, so it begins to measure anew."""

    def __init__(self) -> None:
        self._told: set[int] = set()
        self._own: list[float] = []
        self._seconds, self._steps = 0.0, 0

    def judge(self, own: Sequence[float], seconds: float, steps: int) -> str:
        """`own` by rank and `seconds` in all, both over `steps` steps. What to tell; empty if there is nothing new."""
        self._own = [a + b for a, b in zip(self._own or [0.0] * len(own), own, strict=True)]
        self._seconds, self._steps = self._seconds + seconds, self._steps + steps
        if len(own) < 2 or self._steps < STEPS:
            return ""
        mean, step = [each / self._steps for each in self._own], self._seconds / self._steps
        self._own, self._seconds, self._steps = [], 0.0, 0
        slowest = max(range(len(mean)), key=mean.__getitem__)
        others = statistics.median(each for rank, each in enumerate(mean) if rank != slowest)
        if slowest in self._told or mean[slowest] < RATIO * others or mean[slowest] - others < SHARE * step:
            return ""
        self._told.add(slowest)
        return (
            f"rank {slowest} is slow: {1000 * mean[slowest]:.0f} ms a step for data and forward pass, the others {1000 * others:.0f} ms, "
            f"of a step of {1000 * step:.0f} ms"
        )
