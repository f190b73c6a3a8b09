"""Loader technique: a map-style data set is read as it is needed, by processes beside the one that trains.

For data that do not fit into memory, are decoded as they go, or draw other numbers in each epoch. data/README.md has the design;
data/processes/crew.py and data/processes/nursery.py the processes, and why they are not forked from the trainer.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.applied import EXAMPLES, Applied, applied
from data.loader import Mesh
from data.processes.ahead import copier
from data.processes.crew import Crew
from data.processes.maker import Maker, Spent, Task, evaluating, training
from data.sampling.balance import balanced_order, labels_of, said_by
from data.sampling.balance import check as balance_check
from data.sampling.order import Windowed, epoch_order
from data.sampling.samples import Samples, apart, by_split, held_out
from data.sampling.updates import TEST, VAL, Evaluation, Updates, check
from data.store.files import notice

AUTO = "auto"
MOST = 16
"""Workers that auto starts for one process: few data sets are decoded so slowly that more would help."""
TRIED_SECONDS, TRIED_BATCHES = 1.0, 20
"""How long auto looks at each of the two ways at most, when one batch is made."""


class Source(Protocol):
    """Who makes batches."""

    def batches(self, tasks: Iterable[Task]) -> Iterator[Any]: ...

    def begin_epoch(self) -> None: ...

    def spent(self) -> Spent: ...

    def close(self) -> None: ...


class Workers:
    """Training batches: a pure function of (seed, epoch, step, dp_rank, dp_size), resumable at any step of any epoch."""

    def __init__(
        self,
        data: Any,
        *,
        batch_size: int,
        accumulate: int,
        seed: int,
        num_workers: int | str = AUTO,
        prefetch_factor: int = 2,
        pin_memory: bool = True,
        timeout: float = 40,
        window: int | None = None,
        val: float = VAL,
        test: float = TEST,
        eval_batch_size: int = 500,
        balance: str = "none",
        augment: Any = None,
    ) -> None:
        """`num_workers`: processes, 0 for none; auto: what is faster. `prefetch_factor`: batches that each of them makes ahead. `timeout`:
        seconds that one sample may take; 0 for ever. `window`: samples that are shuffled together, shard by shard where the set says by
        `shards` how many each has, so that what is read in turn lies near; 0: all of an epoch; null: as the set says by `window`, else all.
        `val`, `test`: shares of its training samples to hold out where the set has no such split; 0 for none. `eval_batch_size`: samples
        that one process evaluates at once. `balance`: none, or classes, which then come equally often in training. `augment`: what is done
        to images in training, on the device, one or a list (data/augment/chance.py). Raises ValueError naming the key."""
        check(val, test, eval_batch_size)
        balance_check(balance, window or 0)
        if num_workers != AUTO and (not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 0):
            raise ValueError(f"loader.num_workers={num_workers}: not possible; type a whole number from 0, or auto")
        if num_workers not in (AUTO, 0) and sys.platform != "linux":
            raise ValueError(f"loader.num_workers={num_workers}: loader workers need Linux; type loader.num_workers=0")
        if prefetch_factor < 1:
            raise ValueError(f"loader.prefetch_factor={prefetch_factor}: not possible; type a whole number from 1")
        if window is not None and (isinstance(window, bool) or window < 0):
            raise ValueError(f"loader.window={window}: not possible; type how many samples are shuffled together, 0 for all, or null")
        if not timeout >= 0:
            raise ValueError(f"loader.timeout={timeout}: not possible; type a number of seconds, or 0 to wait for ever")
        self.samples = self.steps_per_epoch = 0
        self._data, self._held_out, self._seed, self._eval_batch_size = data, {"val": val, "test": test}, seed, eval_batch_size
        self._batch_size, self._accumulate, self._count = batch_size, accumulate, num_workers
        self._prefetch, self._pin, self._timeout, self._window = prefetch_factor, pin_memory, timeout, window
        self._is_balanced = balance == "classes"
        self._balanced: NDArray[np.int64] | None = None
        """The class of each sample to train on, where that is so."""
        self._parts: dict[str, tuple[str, NDArray[Any]]] = {}
        """By split: the set it is part of, and its places there."""
        self._source: Source | None = None
        self._stream: Iterator[Any] = iter(())
        self._next: tuple[int, int, int] | None = None
        """Which micro-batch that stream has next: (epoch, step, micro-batch)."""
        self._epoch = -1
        self._augment, self._augmented = augment, cast("Applied | None", None)
        self._asked: deque[Any] = deque()
        """Whose batches that stream has been asked for and has not given yet: the numbers of their samples."""

    def open(self, mesh: Mesh, device: torch.device | str) -> None:
        """Start the workers. Raises ValueError where the data set is none or cannot be sent to them, a step cannot be cut into equal
        micro-batches, or the training part is smaller than one step; RuntimeError where the set's own code fails."""
        self._rank, self._size, self._device = mesh.dp_rank, mesh.dp_size, torch.device(device)
        say = notice if self._rank == 0 else lambda line: None
        sets = {split: _checked(each) for split, each in by_split(self._data).items()}
        self._parts = held_out({split: len(each) for split, each in sets.items()}, self._held_out, self._seed, say)
        self._samples, self.samples = sets["train"], len(self._parts["train"][1])
        if self._window is None:
            self._window = 0 if self._is_balanced else int(getattr(self._samples.data, "window", 0))
        if self._is_balanced:
            self._balanced = self.labels()
        if self._window:
            self._sizes = _shards(self._samples, self._parts["train"][1])
        self._updates = Updates(self._batch_size, self._accumulate, self._rank, self._size)
        self.steps_per_epoch = self._updates.in_epoch(self.samples)
        self._augmented = applied(self._augment, self._seed, self._updates, (self._samples.data,), lambda: self._example(sets))
        if self._count == AUTO:
            self._source, line = self._faster(sets)
            say(line)
        else:
            self._source = self._crew(sets, int(self._count)) if self._count else self._alone(sets)

    def steps(self, epoch: int, start: int = 0) -> Iterator[Any]:
        self._samples.same_length()  # before a batch is made of an order that hangs on it; workers look at theirs
        for step, micro in itertools.product(range(start, self.steps_per_epoch), range(self._accumulate)):
            yield self._batch(epoch, step, micro)

    def evaluation(self, split: str) -> Evaluation:
        if split not in self._parts:
            return Evaluation((), self._rank, self._size, self._eval_batch_size, iter)
        whole, places = self._parts[split]

        def batches(chunks: Iterable[Any]) -> Iterator[Any]:
            assert self._source is not None  # it is open
            return self._source.batches(Task(whole, evaluating(split), chunk.tolist()) for chunk in chunks)

        return Evaluation(places, self._rank, self._size, self._eval_batch_size, batches)

    def labels(self) -> NDArray[np.int64]:
        return labels_of(self._samples.name, said_by(self._samples.data), len(self._samples))[self._parts["train"][1]]

    def stages(self) -> dict[str, float]:
        return {} if self._source is None else self._source.spent()._asdict()

    def close(self) -> None:
        self._stream, self._next = iter(()), None
        if self._source is not None:
            self._source.close()
            self._source = None

    def _batch(self, epoch: int, step: int, micro: int) -> Any:
        """The stream goes on behind the end of an epoch, so that the next begins with batches that are made; who asks for another than
        comes next gets another stream."""
        assert self._source is not None  # it is open
        if epoch != self._epoch:
            self._epoch = epoch
            self._source.begin_epoch()
        if self._next != (epoch, step, micro):
            self._asked = deque()
            self._stream = self._source.batches(_noted(itertools.islice(self._tasks(epoch, step), micro, None), self._asked))
        self._next = None  # until there is one: a stream in which a batch could not be made has ended
        batch = next(self._stream)
        done = (epoch * self.steps_per_epoch + step) * self._accumulate + micro + 1
        update, micro = divmod(done, self._accumulate)
        self._next = *divmod(update, self.steps_per_epoch), micro
        of = self._asked.popleft()
        return batch if self._augmented is None else self._augmented(batch, of, epoch)

    def _tasks(self, epoch: int, start: int) -> Iterator[Task]:
        """From there on, for ever."""
        places = self._parts["train"][1]
        while True:
            order = self._order(epoch)
            for step in range(start, self.steps_per_epoch):
                for chunk in self._updates.places(order, step):
                    yield Task("train", training(epoch), places[chunk].tolist())
            epoch, start = epoch + 1, 0

    def _order(self, epoch: int) -> Any:
        if self._balanced is not None:
            return balanced_order(self._balanced, self._seed, epoch)
        if not self._window:
            return epoch_order(self._seed, epoch, self.samples)
        return Windowed(self._sizes, self._window, self._seed, epoch)

    def _example(self, sets: dict[str, Samples]) -> Any:
        """Some samples of the training part, which is not begun by it."""
        task = Task("train", training(0), self._parts["train"][1][:EXAMPLES].tolist())
        with contextlib.closing(self._alone(sets)) as alone:
            return next(alone.batches([task]))

    def _alone(self, sets: dict[str, Samples]) -> Alone:
        return Alone(sets, self._seed, self._pin, self._device)

    def _crew(self, sets: dict[str, Samples], count: int) -> Crew:
        return Crew(sets, self._seed, count, self._prefetch, self._timeout, self._pin, self._device)

    def _faster(self, sets: dict[str, Samples]) -> tuple[Source, str]:
        """Of no workers and as many as there are CPUs for, and a line that says so. What is read for it is read again: nothing that is
        drawn later hangs on it."""
        alone, cpus = self._alone(sets), _cpus()
        if sys.platform != "linux":
            return alone, "data: no loader workers (loader.num_workers=auto): they need Linux"
        try:
            crew = self._crew(sets, min(cpus, MOST))
        except (ValueError, OSError) as error:
            return alone, f"WARNING: no loader workers (loader.num_workers=auto): {error}"
        try:
            here, there = (_seconds(source.batches(self._tasks(0, 0)), ahead) for source, ahead in ((alone, 1), (crew, crew.room)))
        except BaseException:
            crew.close()
            raise
        count = crew.count if there < here else 0
        if not count:
            crew.close()
        return (crew if count else alone), (
            f"data: {count} loader worker{'s' * (count != 1)} for each process that trains (loader.num_workers=auto): a batch takes "
            f"{1000 * here:.2f} ms without and {1000 * there:.2f} ms with {crew.count}, on {cpus} CPU{'s' * (cpus != 1)}"
        )


class Alone:
    """No processes: a batch is made when it is asked for, here."""

    def __init__(self, sets: dict[str, Samples], seed: int, pin: bool, device: torch.device) -> None:
        self._maker, self._copier = Maker(sets, seed), copier(device, pin)

    def batches(self, tasks: Iterable[Task]) -> Iterator[Any]:
        for task in tasks:
            with apart():
                batch = self._maker.make(task)
            yield self._copier.end(self._copier.begin(batch))

    def begin_epoch(self) -> None:
        """Nobody can be lost."""

    def spent(self) -> Spent:
        return self._maker.spent

    def close(self) -> None:
        """Nothing is held."""


def _noted(tasks: Iterable[Task], numbers: deque[Any]) -> Iterator[Task]:
    """Of each that is begun, the numbers of its samples: batches come in that order."""
    for task in tasks:
        numbers.append(task.indices)
        yield task


def _shards(samples: Samples, places: NDArray[Any]) -> NDArray[np.int64]:
    """How many of those places of a set lie in each of its shards; all in one where it says nothing of any. Raises ValueError."""
    said = getattr(samples.data, "shards", None)
    try:
        sizes = np.asarray([len(samples)] if said is None else said)
    except ValueError:  # lists of several lengths
        sizes = np.zeros(0)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or sizes.min(initial=0) < 0 or sizes.sum() != len(samples):
        raise ValueError(
            f"loader.window: {samples.name}.shards is not how many samples each shard has, {len(samples):,} together; mend it, or type "
            "loader.window=0"
        )
    if len(places) == len(samples):
        return sizes.astype(np.int64)
    return np.bincount(np.searchsorted(np.cumsum(sizes), np.sort(places), side="right"), minlength=len(sizes)).astype(np.int64)


def _seconds(batches: Iterator[Any], ahead: int) -> float:
    """For one, in the long run: behind those that were asked for at once, when everybody had nothing to do."""
    next(batches)  # for which processes had to start, and files to be opened
    _timed(batches, ahead - 1)
    taken = _timed(batches, max(TRIED_BATCHES, ahead))
    return sum(taken) / len(taken)


def _timed(batches: Iterator[Any], most: int) -> list[float]:
    """Seconds of each, of so many, or of those that come in time."""
    taken: list[float] = []
    while len(taken) < most and sum(taken) < TRIED_SECONDS:
        begin = time.perf_counter()
        next(batches)
        taken.append(time.perf_counter() - begin)
    return taken


def _cpus() -> int:
    """That this process may use, of those that it shares with others of its node."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, granted // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _checked(data: Any) -> Samples:
    if hasattr(data, "part") and not hasattr(type(data), "__getitem__"):
        raise ValueError(f"data: {type(data).__name__} makes its batches itself, on the device; type loader=resident")
    return Samples(data)
