"""Loader technique: the whole data set lives on the device, and a batch is a gather there.

There are no workers, so nothing has to be seeded, killed or kept alive, and a step costs no traffic from host to device. Data larger than
memory needs another technique with the same surface (data/loader.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.applied import EXAMPLES, Applied, applied
from data.loader import SPLITS, Mesh, Source
from data.sampling import stacked
from data.sampling.balance import balanced_order, labels_of, said_by
from data.sampling.balance import check as balance_check
from data.sampling.order import epoch_order
from data.sampling.samples import by_split
from data.sampling.updates import TEST, VAL, Evaluation, Updates, check
from data.store.files import notice


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
        balance: str = "none",
        augment: Any = None,
    ) -> None:
        """`val`, `test`: shares of its training samples to hold out where a map-style set has no such split; 0 for none.
        `eval_batch_size`: samples that one process evaluates at once. `balance`: none, or classes, which then come equally often in
        training. `augment`: what is done to images in training, one or a list (data/augment/chance.py). Raises ValueError naming the
        key."""
        check(val, test, eval_batch_size)
        balance_check(balance)
        self.samples = self.steps_per_epoch = 0
        self._data, self._held_out = data, {"val": val, "test": test}
        self._batch_size, self._accumulate, self._seed, self._eval_batch_size = batch_size, accumulate, seed, eval_batch_size
        self._order: Callable[[int], NDArray[np.int64]] = lambda epoch: epoch_order(seed, epoch, self.samples)
        """Of the positions in the training part, by epoch."""
        self._is_balanced = balance == "classes"
        self._sources: dict[str, Source] = {}
        self._rank, self._size, self._device = 0, 1, torch.device("cpu")
        self._made: tuple[int, Callable[[torch.Tensor], Any], torch.Tensor] | None = None
        """The epoch under way: its number, what makes its batches, the places of its samples in their order."""
        self._here = torch.empty(0)
        """That order in the host's memory, where augmentations draw."""
        self._augment, self._augmented = augment, cast("Applied | None", None)

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
        self._updates = Updates(self._batch_size, self._accumulate, self._rank, self._size)
        self.steps_per_epoch = self._updates.in_epoch(self.samples)
        if self._is_balanced:
            self._order = functools.partial(balanced_order, self.labels(), self._seed)
        train, said = self._sources["train"], by_split(self._data)["train"]
        first = torch.from_numpy(train.places[:EXAMPLES]).to(self._device)
        self._augmented = applied(self._augment, self._seed, self._updates, (train, said), lambda: train.batch(first))

    def steps(self, epoch: int, start: int = 0) -> Iterator[Any]:
        for step in range(start, self.steps_per_epoch):
            yield from self.update(epoch, step)

    def update(self, epoch: int, step: int) -> Iterator[Any]:
        """The micro-batches of one step."""
        batches = map(self._epoch(epoch)[0], self.places(epoch, step))
        if self._augmented is None:
            return batches
        return self._augmented.over(batches, self._updates.places(self._here, step), epoch)

    def places(self, epoch: int, step: int) -> Iterator[torch.Tensor]:
        """Of the samples of each of its micro-batches (data/sampling/updates.py)."""
        return self._updates.places(self._epoch(epoch)[1], step)

    def evaluation(self, split: str) -> Evaluation:
        if split not in self._sources:
            return Evaluation((), self._rank, self._size, self._eval_batch_size, iter)
        source = self._sources[split]
        places = torch.from_numpy(source.places).to(self._device)
        return Evaluation(places, self._rank, self._size, self._eval_batch_size, functools.partial(map, source.batch))

    def labels(self) -> NDArray[np.int64]:
        train = self._sources["train"]
        if hasattr(self._data, "part"):
            return labels_of(type(self._data).__name__, getattr(train, "labels", None), self.samples)
        whole = by_split(self._data)["train"]
        return labels_of(type(whole).__name__, said_by(whole), len(whole))[train.places]

    def close(self) -> None:
        self._sources.clear()
        self._made = None

    def _epoch(self, epoch: int) -> tuple[Callable[[torch.Tensor], Any], torch.Tensor]:
        if self._made is None or self._made[0] != epoch:
            train = self._sources["train"]
            self._here = torch.from_numpy(train.places[self._order(epoch)])
            self._made = epoch, train.epoch(self._seed, epoch), self._here.to(self._device)
        return self._made[1:]
