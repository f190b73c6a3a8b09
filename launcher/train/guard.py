"""Numbers that go bad: a loss that is not finite, or jumps. Judged where a line of metrics is written anyway, so that no step pays for it.

Every rank judges the same numbers, summed over all of them, at the same step: nobody has to be told.
"""

from __future__ import annotations

import math
import statistics
from collections import deque

from launcher.errors import TrainingFailed

HISTORY = 20
"""Lines whose median a loss is compared with; none is called a jump before half as many are known."""


class BadNumbers(TrainingFailed):
    """What happened between two steps should not become part of the run."""

    def __init__(self, message: str, since: int = 0, until: int = 0, *, blames_data: bool = True) -> None:
        super().__init__(message)
        self.blames_data = blames_data
        """Whether going over the same batches again would end the same way."""
        self.since = since
        """The last step known to be good."""
        self.until = until
        """The last step that used the batches in question; 0: not known, a checkpoint met the numbers first."""


class Guard:
    """`spike`: a loss so many times the median of the last lines is bad; 0: none is."""

    def __init__(self, spike: float) -> None:
        self._spike = spike
        self._losses: deque[float] = deque(maxlen=HISTORY)

    def judge(self, loss: float | None, since: int, until: int) -> None:
        """The mean loss of the steps after `since` to `until`; None: the task has none. Raises BadNumbers."""
        if loss is None:
            return
        usual = statistics.median(self._losses) if len(self._losses) >= HISTORY // 2 else math.inf
        what = ""
        if not math.isfinite(loss):
            what = f"{loss}"
        elif self._spike and loss > self._spike * usual > 0:
            what = f"{loss:.4g} after {usual:.4g}, more than train.spike={self._spike:g} times as much"
        if what:
            text = f"the loss of steps {since + 1} to {until} is {what}; lower optim.lr, or go back and pass these batches over: "
            raise BadNumbers(f"{text}train.on_bad=rollback", since, until)
        self._losses.append(loss)

    def forget(self) -> None:
        """After going back, what was learned since does not count."""
        self._losses.clear()
