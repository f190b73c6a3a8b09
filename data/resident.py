"""Loader technique: the whole data set lives on the device, and a batch is a gather there.

There are no workers, so nothing has to be seeded, killed or kept alive, and a step costs no traffic from host to device. Data larger than
memory needs another technique with the same surface (data/loader.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from data import stacked
from data.files import notice
from data.loader import SPLITS, Mesh, Source
from data.order import epoch_order, share

VAL, TEST = 0.1, 0.1


class Resident:
    """Training batches: a pure function of (seed, epoch, step, dp_rank, dp_size), resumable at any step of any epoch."""

    def __init__(
        self,
        data: Any,
        *,
        batch_size: int,
        accumulate: int,
        seed: int,
        val: float = VAL,
        test: float = TEST,
        eval_batch_size: int = 500,
    ) -> None:
        """`val`, `test`: shares of its training samples to hold out where a map-style set has no such split; 0 for none.
        `eval_batch_size`: samples that one process evaluates at once. Raises ValueError naming the key."""
        for key, value in (("val", val), ("test", test)):
            if not 0 <= value < 1:
                raise ValueError(f"loader.{key}={value}: not possible; type a share from 0 to below 1")
        if val + test >= 1:
            raise ValueError(f"loader.val={val}: with loader.test={test} nothing is left to train on; type shares of less than 1 together")
        if eval_batch_size < 1:
            raise ValueError(f"loader.eval_batch_size={eval_batch_size}: not possible; type a whole number from 1")
        self.samples = self.steps_per_epoch = 0
        self._data, self._held_out = data, {"val": val, "test": test}
        self._batch_size, self._accumulate, self._seed, self._eval_batch_size = batch_size, accumulate, seed, eval_batch_size
        self._sources: dict[str, Source] = {}
        self._rank, self._size, self._device = 0, 1, torch.device("cpu")
        self._made: tuple[int, Callable[[torch.Tensor], Any], torch.Tensor] | None = None
        """The epoch under way: its number, what makes its batches, the places of its samples in their order."""

    def open(self, mesh: Mesh, device: torch.device | str) -> None:
        """Read what is not read yet. Raises ValueError where the data set is none or does not fit, a step cannot be cut into equal
        micro-batches, or the training part is smaller than one step."""
        self._rank, self._size, self._device = mesh.dp_rank, mesh.dp_size, torch.device(device)
        say = notice if self._rank == 0 else lambda line: None
        if hasattr(self._data, "part"):
            found = {split: self._data.part(split, self._device) for split in SPLITS}
            if self._held_out != {"val": VAL, "test": TEST}:
                say(f"WARNING: loader.val and loader.test are ignored: {type(self._data).__name__} has splits of its own")
        else:
            found = stacked.sources(self._data, self._device, self._seed, self._held_out, say)
        self._sources = {split: source for split, source in found.items() if source is not None}
        self.samples = len(self._sources["train"].places)
        self.steps_per_epoch = self._checked_steps()

    def steps(self, epoch: int, start: int = 0) -> Iterator[Any]:
        for step in range(start, self.steps_per_epoch):
            yield from self.update(epoch, step)

    def update(self, epoch: int, step: int) -> Iterator[Any]:
        """The micro-batches of one step."""
        return map(self._epoch(epoch)[0], self.places(epoch, step))

    def places(self, epoch: int, step: int) -> Iterator[torch.Tensor]:
        """Of the samples of each of its micro-batches: step g of the epoch uses order[g*B:(g+1)*B], micro-batch a of rank r is the
        (a*world + r)-th of its equal chunks. Samples that fill no whole step are left for another epoch's order."""
        order, parts = self._epoch(epoch)[1], self._size * self._accumulate
        micro = self._batch_size // parts
        for chunk in range(self._rank, parts, self._size):
            begin = step * self._batch_size + chunk * micro
            yield order[begin : begin + micro]

    def evaluation(self, split: str) -> Evaluation:
        return Evaluation(self._sources.get(split), self._rank, self._size, self._device, self._eval_batch_size)

    def close(self) -> None:
        self._sources.clear()
        self._made = None

    def _epoch(self, epoch: int) -> tuple[Callable[[torch.Tensor], Any], torch.Tensor]:
        if self._made is None or self._made[0] != epoch:
            train = self._sources["train"]
            order = torch.from_numpy(train.places[epoch_order(self._seed, epoch, self.samples)]).to(self._device)
            self._made = epoch, train.epoch(self._seed, epoch), order
        return self._made[1:]

    def _checked_steps(self) -> int:
        """In an epoch. Raises ValueError."""
        batch, world, accumulate = self._batch_size, self._size, self._accumulate
        if batch < 1 or batch % (world * accumulate):
            raise ValueError(
                f"train.batch_size={batch}: a step is shared by {world} process(es) in {accumulate} micro-batch(es) "
                f"each, which needs a multiple of {world * accumulate}; type one of those, e.g. train.batch_size="
                f"{max(1, round(batch / (world * accumulate))) * world * accumulate}"
            )
        if self.samples < batch:
            raise ValueError(
                f"train.batch_size={batch}: the training part has {self.samples} samples, less than one step; "
                f"type train.batch_size={self.samples // (world * accumulate) * world * accumulate or 1} or smaller"
            )
        return self.samples // batch


class Evaluation:
    """This process's share of a split, in order and unchanged. Re-iterable."""

    def __init__(self, source: Source | None, rank: int, size: int, device: torch.device, batch_size: int) -> None:
        """Shares differ by at most one sample, and may be empty. `source`: None for a split that there is none of."""
        self.samples = 0 if source is None else len(source.places)
        self._source, self._batch_size = source, batch_size
        places = torch.zeros(0, dtype=torch.int64) if source is None else torch.from_numpy(source.places).to(device)
        self._places, self._first = places[share(self.samples, rank, size)], places[:1]

    def __iter__(self) -> Iterator[Any]:
        if self._source is not None and len(self._places):
            yield from map(self._source.batch, self._places.split(self._batch_size))

    def spare(self) -> Any:
        """The first sample of the split, for a process that has fewer batches than another."""
        assert self._source is not None  # a split without samples is not evaluated
        return self._source.batch(self._first)

    def __len__(self) -> int:
        """Batches on this process."""
        return -(-len(self._places) // self._batch_size)
