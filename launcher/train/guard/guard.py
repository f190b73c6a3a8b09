"""Numbers that go bad: a loss that is not finite, or jumps. Judged where a line of metrics is written anyway, so that no step pays for it.

Every rank judges the same numbers, summed over all of them, at the same step: nobody has to be told.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence

from launcher.errors import TrainingFailed

HISTORY = 20
"""Lines whose median a loss is compared with; none is called a jump before half as many are known."""

SMALLEST_SCALE = 2.0**-8
"""Of fp16 gradients: torch's scaler begins at 2**16, so that 24 updates in a row were skipped."""


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

    def judge_scale(self, scale: float, since: int, until: int) -> None:
        """torch's scaler halves its scale at each update it skips for an overflow. Raises BadNumbers where no scale is small enough."""
        if scale < SMALLEST_SCALE:
            raise BadNumbers(
                f"the fp16 gradients of steps {since + 1} to {until} overflow at every scale, down to {scale:.1g}, so nothing is learnt; "
                "lower optim.lr, set train.clip_norm, or type train.precision=bf16 or fp32",
                since,
                until,
            )

    def judge_skips(self, skipped: int, most: int, since: int, until: int) -> None:
        """`skipped` updates in the whole run until now. Raises BadNumbers for more than `most`."""
        if skipped > most:
            raise BadNumbers(
                f"{skipped} updates had a gradient that is not finite, the last in steps {since + 1} to {until}; lower optim.lr, "
                f"look at the data, or allow more than train.max_skips={most}",
                since,
                until,
            )

    def losses(self) -> list[float]:
        """By which the next one is judged."""
        return list(self._losses)

    def remember(self, losses: Sequence[float]) -> None:
        """Judge by these, and by nothing that was seen since."""
        self._losses = deque(losses, maxlen=HISTORY)
