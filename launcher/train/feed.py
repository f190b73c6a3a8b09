"""The micro-batches of a run, from where it is, epoch after epoch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from launcher.node.pulse import DATA, FORWARD
from launcher.train.checkpoint.stored import TrainState
from launcher.train.record.clock import Clock
from launcher.train.watch import NoWatch, Watch


class Feed:
    """Gives one when it is asked for one, and no earlier; notes for how long it waited."""

    def __init__(self, loader: Any, state: TrainState, accumulate: int, watch: Watch | NoWatch, clock: Clock) -> None:
        """`state`: where to begin; it is not looked at again."""
        self._watch, self._clock = watch, clock
        self._batches: Iterator[Any] = _from(loader, state.step + state.passed_over)
        self._accumulate = accumulate
        self._left = accumulate

    def begin(self, step: int) -> None:
        """A step begins, `step` updates are done."""
        self._clock.asked = self._watch.step(step)
        self._left = self._accumulate

    def peek(self) -> Any:
        """The next one, which is given again."""
        batch = next(self._batches)
        self._batches = itertools.chain((batch,), self._batches)
        return batch

    def __iter__(self) -> Feed:
        return self

    def __next__(self) -> Any:
        """Raises StopIteration where the step has had all of its micro-batches."""
        if not self._left:
            raise StopIteration
        asked = self._clock.asked if self._left == self._accumulate else self._watch.at(DATA)
        self._left -= 1
        batch = next(self._batches)
        self._clock.waited(asked, self._watch.at(FORWARD))
        return batch


def _from(loader: Any, update: int) -> Iterator[Any]:
    """The loader repeats for ever: whoever asks knows how many steps there are."""
    while True:
        epoch, start = divmod(update, loader.steps_per_epoch)
        yield from loader.steps(epoch, start)
        update += loader.steps_per_epoch - start
