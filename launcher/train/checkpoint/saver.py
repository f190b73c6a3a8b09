"""Saving beside training: the loop waits for a copy to host memory, a thread writes it to the disk.

How often, by default: a save costs training C seconds, a failure costs on average half an interval T of work, and there is one every M
seconds. T = sqrt(2 C M) makes the sum least (Young 1974, https://doi.org/10.1145/361147.361115; Daly 2006,
https://doi.org/10.1016/j.future.2004.11.016, whose higher orders matter only where C comes near M).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from launcher.train.checkpoint.checkpoint import CheckpointStore, Content
from launcher.train.checkpoint.state import Parts, Snapshot
from launcher.train.checkpoint.stored import TrainState
from launcher.train.deadline import Deadline
from launcher.train.device import Stream
from launcher.train.record.span import Span, span

FLOOR_SECONDS = 1.0
"""Between two saves at least; also before the first, when nothing is known of their cost."""


class Interval:
    """When the next save is due: every so many steps, or by what saves have been seen to cost by this attempt, for the next one may have
    another disk."""

    def __init__(self, every: int | None, mean_time_between_failures: float) -> None:
        """`every` in steps, None: by cost; `mean_time_between_failures` in seconds."""
        self._every = every
        self._failures = mean_time_between_failures
        self.seconds = FLOOR_SECONDS
        """Between two saves, where they are not counted in steps."""
        self._last = time.monotonic()

    def by_step(self, step: int) -> bool:
        return self._every is not None and step % self._every == 0

    def by_time(self) -> bool:
        return self._every is None and time.monotonic() - self._last >= self.seconds

    def restart(self) -> None:
        self._last = time.monotonic()

    def measured(self, cost: float, whole: float) -> None:
        """`cost`: seconds that a save took from training; `whole`: until it was on the disk. One at a time, so not more often than that."""
        self.seconds = max(FLOOR_SECONDS, whole, math.sqrt(2 * cost * self._failures))


class Saver:
    """At most one save is under way. Every rank calls every method at the same step."""

    def __init__(
        self,
        store: CheckpointStore,
        interval: Interval,
        deadline: Deadline,
        rank: int,
        measure: Callable[[Stream | None], Span] = span,
    ) -> None:
        """`measure`: begins to measure for how long a stream copies: on a GPU training goes on beside it, and loses less."""
        self.interval = interval
        self._measure = measure
        self._store = store
        self._deadline = deadline
        self._rank = rank
        self._snapshot = Snapshot()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._running: Future[tuple[float, float, float]] | None = None
        self._stalled = 0.0
        self._step: int | None = None
        """Of the newest save, or of the checkpoint that training goes on from."""

    def begin(self, parts: Parts, state: TrainState, judged: float = math.inf, best: int | None = None) -> None:
        """Returns when the state is copied, or its copy is in the device's queue; `judged` and `best` are for the store. Waits for the save
        before this one, and raises what became of it: RunError, TrainingFailed."""
        self.wait()
        if state.step == self._step:
            return
        self._step = state.step
        self.interval.restart()
        began, copying = time.perf_counter(), self._measure(self._snapshot.aside(parts.device))
        files = self._snapshot.take(parts, state, self._rank)
        copying.end()
        self._stalled = time.perf_counter() - began
        self._running = self._thread.submit(self._write, state.step, files, judged, best, copying)

    def is_at(self, step: int) -> None:
        """Training is at the checkpoint of `step`, which needs no saving; what was saved later will have to be saved once more."""
        self._step = step

    def is_due(self) -> bool:
        """What rank 0 knows, once for each save: by the time the others have heard of it, it has not begun yet."""
        due = self._rank == 0 and self.interval.by_time()
        if due:
            self.interval.restart()
        return due

    def has_failed(self) -> bool:
        """Whether the save under way has; the ranks agree on it, then `wait` raises on all of them."""
        if self._running is None or not self._running.done():
            return False
        if self._running.exception() is None:
            self.wait()
            return False
        return True

    def wait(self) -> None:
        """Until the save under way, if there is one, is on the disk. Raises as `begin`."""
        if self._running is None:
            return
        running, self._running = self._running, None
        copied, worked, whole = running.result()
        stalled = max(self._stalled, copied)  # the host fills the queue while the device copies
        self._deadline.saved(stalled + whole)
        self.interval.measured(stalled + worked, stalled + whole)

    def _write(self, step: int, files: dict[str, Content], judged: float, best: int | None, copying: Span) -> tuple[float, float, float]:
        """Returns seconds (of the device, copying; of a processor; of the clock)."""
        worked, began = time.thread_time(), time.monotonic()
        copied = copying.seconds()
        self._store.save(step, files, judged, best)
        return copied, time.thread_time() - worked, time.monotonic() - began
