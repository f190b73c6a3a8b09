"""Which samples come when, in training and in evaluation: the same under every loader technique.

A step is cut by ranks and micro-batches here and nowhere else, so that a run may go on in another world, or with another technique, and
sees the samples that it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from data.sampling.order import share

VAL, TEST = 0.1, 0.1


class Updates(NamedTuple):
    """An epoch cut into steps, and a step into the micro-batches of this process."""

    batch_size: int
    accumulate: int
    rank: int
    size: int

    def places(self, order: Any, step: int) -> Iterator[Any]:
        """Of the samples of each micro-batch: step g of the epoch uses order[g*B:(g+1)*B], micro-batch a of rank r is the
        (a*world + r)-th of its equal chunks. Samples that fill no whole step are left for another epoch's order."""
        parts = self.size * self.accumulate
        micro = self.batch_size // parts
        for chunk in range(self.rank, parts, self.size):
            begin = step * self.batch_size + chunk * micro
            yield order[begin : begin + micro]

    def in_epoch(self, samples: int) -> int:
        """Raises ValueError where a step cannot be cut into equal micro-batches, or there are fewer samples than one has."""
        batch, world, accumulate = self.batch_size, self.size, self.accumulate
        if batch < 1 or batch % (world * accumulate):
            raise ValueError(
                f"train.batch_size={batch}: a step is shared by {world} process(es) in {accumulate} micro-batch(es) "
                f"each, which needs a multiple of {world * accumulate}; type one of those, e.g. train.batch_size="
                f"{max(1, round(batch / (world * accumulate))) * world * accumulate}"
            )
        if samples < batch:
            raise ValueError(
                f"train.batch_size={batch}: the training part has {samples} samples, less than one step; "
                f"type train.batch_size={samples // (world * accumulate) * world * accumulate or 1} or smaller"
            )
        return samples // batch


class Evaluation:
    """This process's share of a split, in order and unchanged. Re-iterable."""

    def __init__(self, places: Any, rank: int, size: int, batch_size: int, batches: Callable[[Iterable[Any]], Iterator[Any]]) -> None:
        """Shares differ by at most one sample, and may be empty. `places`: of all samples of the split, none for a split that there is none
        of; `batches` makes a batch of each of the parts that it is given."""
        self.samples = len(places)
        self._batch_size, self._batches = batch_size, batches
        self._places, self._first = places[share(self.samples, rank, size)], places[:1]

    def __iter__(self) -> Iterator[Any]:
        starts = range(0, len(self._places), self._batch_size)
        return self._batches(self._places[start : start + self._batch_size] for start in starts)

    def spare(self) -> Any:
        """The first sample of the split, for a process that has fewer batches than another."""
        return next(self._batches([self._first]))

    def __len__(self) -> int:
        """Batches on this process."""
        return -(-len(self._places) // self._batch_size)


def check(val: float, test: float, eval_batch_size: int) -> None:
    """What every technique is told. Raises ValueError naming the key."""
    for key, value in (("val", val), ("test", test)):
        if not 0 <= value < 1:
            raise ValueError(f"loader.{key}={value}: not possible; type a share from 0 to below 1")
    if val + test >= 1:
        raise ValueError(f"loader.val={val}: with loader.test={test} nothing is left to train on; type shares of less than 1 together")
    if eval_batch_size < 1:
        raise ValueError(f"loader.eval_batch_size={eval_batch_size}: not possible; type a whole number from 1")
