"""What all ranks know at a step boundary: a few small numbers, each the maximum over the ranks."""

from __future__ import annotations

from typing import Any

import torch

from launcher.train.world.ranks import Ranks


class Agreement:
    """One message per step on a group of its own. The answer of one step is collected at the next, so that no step waits for it."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._pending: tuple[Any, torch.Tensor] | None = None
        self.reach = 1 if ranks.world == 1 else 2
        """Steps from one exchange to that at which what is said there has come of it."""

    def exchange(self, *values: int | bool) -> list[int]:
        """Call once per step on every rank, with as many values each time. Returns the maxima, the same on all ranks at the same step:
        of these values with one process, else of those of the step before."""
        if self._ranks.world == 1:
            return [int(value) for value in values]
        answer = self.settle() or [0] * len(values)
        mine = torch.tensor(values, dtype=torch.int32)
        self._pending = (self._ranks.begin_max(mine), mine)
        return answer

    def settle(self) -> list[int]:
        """Wait for the message under way: once more at the end, so that none is left when the group is torn down."""
        if self._pending is None:
            return []
        work, values = self._pending
        work.wait()
        self._pending = None
        return values.tolist()
