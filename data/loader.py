"""The two halves of data, as protocols: a *data set* is what people have, a *loader technique* is how it comes to the device.

A data set is one of these:

- map-style (`torch.utils.data.Dataset`): a class with `__len__` and `__getitem__`, and nothing else. Where its constructor takes a `split`
  that the config does not say, it is made once for each of train, val and test; it does not have val or test where the constructor raises a
  ValueError or KeyError that names it (`no split 'val'`). What it has not is held out of its training samples, by seed.
- arrays with a transform of their own for whole batches: a class with `part(split, device)`, which returns a `Source`, or None where it has
  no such split. data/cifar10.py is one.

Either may have `prepare()`, called once where the user sees it, which returns keywords that pin what was found; `class_names`; and
`standin`, whether its data are drawn, which everything that a run writes then says; `preprocessing`, how a file or row becomes what the
model is given (docs/after-training.md has its keys). Of one object for each split, that for train is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")


class Mesh(Protocol):
    """This process's place among those that share a batch: all that a loader asks of the launcher's mesh."""

    @property
    def dp_rank(self) -> int:
        """Which share of each batch is this process's, from 0; several have the same where a model is split over them."""
        ...

    @property
    def dp_size(self) -> int:
        """Into how many shares a batch is cut."""
        ...


class MapStyle(Protocol):
    """What PyTorch calls a map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any:
        """Sample 0..len-1: numbers, arrays, tensors or images, in tuples, lists or dicts of any nesting."""
        ...


class Source(Protocol):
    """One split on a device, from which samples are taken by their places."""

    places: NDArray[np.int64]
    """Of its samples, (samples,): what `batch` takes. A source may say their classes beside it: `labels`, (samples,) int64."""

    def batch(self, places: torch.Tensor) -> Any:
        """Those samples, `places` (b,) int64 on the device, unchanged; of any nesting, each leaf (b, …)."""
        ...

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], Any]:
        """`batch` for training, as that epoch changes samples: a function of (seed, epoch, place) alone."""
        ...


class Part(Protocol):
    """A split to evaluate on: iterates over this process's batches, as often as it is asked to; each sample once over all shares."""

    samples: int
    """Of the whole split; 0 where the data set has none."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int:
        """Batches on this process."""
        ...

    def spare(self) -> Any:
        """A batch for a process that has fewer than another, and has to take part in its forward passes."""
        ...


class Loader(Protocol):
    """A technique, made with `data` (a data set, or a dict of one for each split), `batch_size` (samples of one update over all processes),
    `accumulate` (micro-batches of one process in an update) and `seed`."""

    samples: int
    """Of the training split, once it is open."""
    steps_per_epoch: int

    def open(self, mesh: Mesh, device: torch.device) -> None:
        """Make ready: what takes long happens here. Raises ValueError or OSError for what the user has to mend, in one line that names the
        key; RuntimeError where the data set's own code fails."""
        ...

    def steps(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """This process's micro-batches of the steps `start`, start+1, … of `epoch`, one after the other, `accumulate` for each step, made
        when they are asked for or a few ahead. Which samples they have is a function of (seed, epoch, step, dp_rank, dp_size)."""
        ...

    def evaluation(self, split: str) -> Part:
        """train, val or test. Samples as they are, without what training does to them."""
        ...

    def labels(self) -> NDArray[np.int64]:
        """The class of each sample of the training part, (samples,). Raises ValueError where the data set does not say it."""
        ...

    def stages(self) -> Mapping[str, float]:
        """Seconds that went into each stage of making batches, over all workers and from the beginning; a technique may do without."""
        ...

    def close(self) -> None:
        """Let go of what it holds: no `steps` and no `evaluation` after it."""
        ...
