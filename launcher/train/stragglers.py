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


class Stragglers:
    """Says it once for each rank."""

    def __init__(self) -> None:
        self._told: set[int] = set()

    def judge(self, own: Sequence[float], step_seconds: float) -> str:
        """`own` by rank, in seconds a step, mean over the steps of a line. What to tell; empty if there is nothing new."""
        if len(own) < 2:
            return ""
        slowest = max(range(len(own)), key=own.__getitem__)
        others = statistics.median(seconds for rank, seconds in enumerate(own) if rank != slowest)
        if slowest in self._told or own[slowest] < RATIO * others or own[slowest] - others < SHARE * step_seconds:
            return ""
        self._told.add(slowest)
        return (
            f"rank {slowest} is slow: {1000 * own[slowest]:.0f} ms a step for data and forward pass, the others {1000 * others:.0f} ms, "
            f"of a step of {1000 * step_seconds:.0f} ms"
        )
