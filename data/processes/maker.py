"""From the numbers of samples to a batch: the same bytes in whichever process, whenever, however often.

What `__getitem__` draws at random is drawn from generators that are planted for each sample, with a hash of who it is.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from data.loader import SPLITS
from data.sampling.leaf import Leaf
from data.sampling.samples import FAULTS, Samples, plant

COLLATING = -1
"""In place of a sample's number: all are there, and become a batch."""

_INSTEAD = "they cannot lie in one array: give the data set a method collate(samples) that makes the batch, or bring all to one shape"


class Task(NamedTuple):
    """A batch to be made."""

    whole: str
    """The set, by the split that it was made for."""
    moment: tuple[int, int]
    """What the draws hang on beside the seed and the sample: an epoch of training, or a split that is evaluated."""
    indices: Sequence[int]


class Spent(NamedTuple):
    """Seconds within `__getitem__`, of all samples so far."""

    reading: float = 0.0
    """Waiting: for the disk, the network, or a processor."""
    decoding: float = 0.0
    """At work."""


def training(epoch: int) -> tuple[int, int]:
    return 0, epoch


def evaluating(split: str) -> tuple[int, int]:
    return 1, SPLITS.index(split)


class Maker:
    """Pickles where the data sets do."""

    def __init__(self, sets: Mapping[str, Samples], seed: int) -> None:
        self._sets, self._seed = sets, seed
        self.spent = Spent()

    def make(self, task: Task, note: Callable[[int], None] = lambda index: None) -> Any:
        """Leaves the generators planted. `note` is told the number of each sample before it is read, and COLLATING. Raises ValueError or
        RuntimeError in one line that names the sample."""
        samples = self._sets[task.whole]
        samples.same_length()
        began, worked, read = time.perf_counter(), time.thread_time(), []
        for index in task.indices:
            note(index)
            plant(self._word(*task.moment, index))
            read.append(samples[index])
        self._count(began, worked)
        note(COLLATING)
        collate = getattr(samples.data, "collate", None)
        if collate is None:
            return _stacked(samples, read, task.indices)
        try:
            return collate(read)
        except FAULTS as error:  # a user's code, as Samples has it
            raise samples.failed(f".collate (samples {_named(task.indices)})", error) from error

    def _count(self, began: float, worked: float) -> None:
        """What was no work was waiting: for a disk, a network, or a processor."""
        now, worked = time.perf_counter(), time.thread_time() - worked
        self.spent = Spent(self.spent.reading + max(0.0, now - began - worked), self.spent.decoding + worked)

    def _word(self, *moment: int) -> int:
        """As wide as torch's seeds are. SeedSequence, as data/sampling/order.py has it, would take 20 times as long."""
        text = f"{self._seed},{','.join(map(str, moment))}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=b"a sample").digest(), "little")


def _stacked(samples: Samples, read: list[Any], indices: Sequence[int]) -> Any:
    """As data/sampling/stacked.py makes them of tensors that hold all samples."""
    stacks: list[list[tuple[torch.Tensor, bool]]] = []
    form: Any = None
    for index, sample in zip(indices, read, strict=True):
        values, other = pytree.tree_flatten(sample)
        if form is None:
            form, stacks = other, [[] for _ in values]
        elif other != form:
            samples.refuse(index, f"has other parts than sample {indices[0]}; return the same structure for each, or add a method collate")
        for stack, value in zip(stacks, values, strict=True):
            part, is_image = samples.leaf(value, index)
            stack.append((part, is_image))
            samples.alike(part, index, stack[0][0], indices[0], _INSTEAD)
    return pytree.tree_unflatten([Leaf(torch.stack([part for part, _ in stack]), stack[0][1]).whole() for stack in stacks], form)


def _named(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:3])) + (f" and {len(indices) - 3} more" if len(indices) > 3 else "")
