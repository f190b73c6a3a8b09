"""A map-style data set, read once and stacked: each leaf of its samples becomes one tensor on the device.

Each sample is read once, in order. What `__getitem__` draws at random is drawn then, from a seed of its own, and stays as it is in all
epochs: augmentation that changes from epoch to epoch needs arrays with a transform (data/loader.py), or loader=workers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from data.loader import SPLITS, MapStyle
from data.sampling import memory, order
from data.sampling.leaf import Leaf
from data.sampling.samples import Samples, Say, apart, by_split, held_out, plant

_INSTEAD = "loader=resident stacks them into one array: bring all to one shape and type (crop, resize, pad)"


class Stacked:
    """Tensors of all samples, and the places of a split among them: a Source of data/loader.py."""

    def __init__(self, leaves: list[Leaf], form: Any, places: NDArray[np.int64]) -> None:
        self.places = places
        self._leaves, self._form = leaves, form

    def of(self, places: NDArray[np.int64]) -> Stacked:
        """Some of them."""
        return Stacked(self._leaves, self._form, places)

    def batch(self, places: torch.Tensor) -> Any:
        return pytree.tree_unflatten([leaf.batch(places) for leaf in self._leaves], self._form)

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], Any]:
        return self.batch


def sources(data: Any, device: torch.device, seed: int, shares: Mapping[str, float], say: Say) -> dict[str, Stacked]:
    """By split. `data`: one set, or a dict of one for each split that there is; `shares`: of the training samples to take for a split that
    there is none of. Raises ValueError where one is no map-style set, or cannot be stacked; RuntimeError where its own code fails.
    """
    read_in = {split: read(each, split, device, seed, say) for split, each in by_split(data).items()}
    parts = held_out({split: len(each.places) for split, each in read_in.items()}, shares, seed, say)
    return {split: read_in[whole].of(places) for split, (whole, places) in parts.items()}


def read(data: MapStyle, split: str, device: torch.device, seed: int, say: Say) -> Stacked:
    """A whole map-style set. Raises as `sources` does."""
    samples = Samples(data)
    with _generators(seed, split):
        values, form = samples.flat(0)
        first = [samples.leaf(value, 0) for value in values]
        again = [samples.leaf(value, 0) for value in samples.flat(0)[0]]
    if len(first) != len(again) or any(not torch.equal(one, other) for (one, _), (other, _) in zip(first, again, strict=True)):
        say(
            f"WARNING: data: {samples.name}[0] is another each time that it is read, and loader=resident reads each sample once: what is "
            "drawn then stays for the whole run (loader=workers draws anew in each epoch)"
        )
    if hasattr(data, "collate"):
        say(f"WARNING: data: {samples.name}.collate is not called: loader=resident stacks samples by itself (loader=workers calls it)")
    memory.check(len(samples), sum(value.nbytes for value, _ in first), device)
    stacks = [torch.empty((len(samples), *value.shape), dtype=value.dtype) for value, _ in first]
    with _generators(seed, split):
        for index in range(len(samples)):
            values, other = samples.flat(index)
            if other != form:
                samples.refuse(index, "has other parts than sample 0; return the same structure for each")
            for stack, value in zip(stacks, values, strict=True):
                part, _ = samples.leaf(value, index)
                samples.alike(part, index, stack[0], 0, _INSTEAD)
                stack[index] = part
    samples.same_length()
    leaves = [Leaf(stack.to(device), is_image) for stack, (_, is_image) in zip(stacks, first, strict=True)]
    return Stacked(leaves, form, np.arange(len(samples), dtype=np.int64))


@contextlib.contextmanager
def _generators(seed: int, split: str) -> Iterator[None]:
    """Seeded for as long as the context lasts: what is drawn is the same on every rank and in every attempt."""
    with apart():
        plant(int(order.words(1, order.READ, seed, SPLITS.index(split))[0]))
        yield
