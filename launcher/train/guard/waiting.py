"""A device that waits for data: how much of the time, and what the loader does meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

SHARE = 0.1
"""Of the time: less is not worth a word."""
STEPS = 25
"""Over so many steps at least."""


class Waiting:
    """Says it once in an attempt."""

    def __init__(self) -> None:
        self._waited = self._seconds = 0.0
        self._steps = 0
        self._before: dict[str, float] = {}
        self._is_told = False

    def judge(self, waited: float, seconds: float, steps: int, stages: Mapping[str, float]) -> str:
        """`waited` of `seconds`, over `steps` steps. `stages`: seconds that the loader has spent in each, from its beginning. What to tell;
        empty if there is nothing new."""
        self._waited, self._seconds, self._steps = self._waited + waited, self._seconds + seconds, self._steps + steps
        if self._is_told or self._steps < STEPS:
            return ""
        share, step = self._waited / self._seconds, self._seconds / self._steps
        # A worker that is started again begins from nothing.
        spent = {name: max(0.0, now - self._before.get(name, 0.0)) for name, now in stages.items()}
        self._waited = self._seconds = 0.0
        self._steps, self._before = 0, dict(stages)
        if share < SHARE:
            return ""
        self._is_told = True
        line = f"{share:.0%} of the time goes by waiting for data, of a step of {1000 * step:.0f} ms"
        if (whole := sum(spent.values())) <= 0:
            return line
        parts = sorted(spent.items(), key=lambda part: -part[1])
        return f"{line}; the loader's own goes to {', '.join(f'{name} {seconds / whole:.0%}' for name, seconds in parts)}"
