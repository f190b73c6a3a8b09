"""A map-style data set, read once and stacked: each leaf of its samples becomes one tensor on the device.

Each sample is read once, in order. What `__getitem__` draws at random is drawn then, from a seed of its own, and stays as it is in all
epochs: augmentation that changes from epoch to epoch needs arrays with a transform (data/loader.py), or a technique with workers.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from data import memory, order
from data.files import first_line
from data.leaf import Leaf, leaf_of
from data.loader import SPLITS, MapStyle

Say = Callable[[str], None]


class Stacked:
    """Tensors of all samples, and the places of a split among them: a Source of data/loader.py."""

    def __init__(self, leaves: list[Leaf], form: Any, places: NDArray[np.int64]) -> None:
        self.places = places
        self._leaves, self._form = leaves, form

    def of(self, places: NDArray[np.int64]) -> Stacked:
        """Some of them, in the order they lie in."""
        return Stacked(self._leaves, self._form, np.sort(places))

    def batch(self, places: torch.Tensor) -> Any:
        return pytree.tree_unflatten([leaf.batch(places) for leaf in self._leaves], self._form)

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], Any]:
        return self.batch


def sources(data: Any, device: torch.device, seed: int, held_out: Mapping[str, float], say: Say) -> dict[str, Stacked]:
    """By split. `data`: one set, or a dict of one for each split that there is; `held_out`: the share of the training samples to take for a
    split that there is none of. Raises ValueError where one is no map-style set, or cannot be stacked; RuntimeError where its own code
    fails.
    """
    sets: Mapping[str, Any] = data if isinstance(data, dict) else {"train": data}
    found = {split: read(each, split, device, seed, say) for split, each in sets.items()}
    whole, places = found["train"], order.shuffled(len(found["train"].places), order.SPLIT, seed)
    for split, share in held_out.items():
        if split in found or not (count := round(share * len(whole.places))):
            continue
        found[split], places = whole.of(places[:count]), places[count:]
        say(f"data: no {split} of its own: {count:,} of {len(whole.places):,} samples are held out, by seed (loader.{split}={share:g})")
    found["train"] = whole.of(places)
    return found


def read(data: MapStyle, split: str, device: torch.device, seed: int, say: Say) -> Stacked:
    """A whole map-style set. Raises as `sources` does."""
    reader = _Reader(data)
    with _generators(seed, split):
        values, form = reader.flat(0)
        first = [reader.leaf(value, 0) for value in values]
        again = [reader.leaf(value, 0) for value in reader.flat(0)[0]]
    if len(first) != len(again) or any(not torch.equal(one, other) for (one, _), (other, _) in zip(first, again, strict=True)):
        say(
            f"WARNING: data: {reader.name}[0] is another each time that it is read, and loader=resident reads each sample once: what is "
            "drawn then stays for the whole run"
        )
    memory.check(len(reader), sum(value.nbytes for value, _ in first), device)
    stacks = [torch.empty((len(reader), *value.shape), dtype=value.dtype) for value, _ in first]
    with _generators(seed, split):
        for index in range(len(reader)):
            values, other = reader.flat(index)
            if other != form:
                reader.refuse(index, "has other parts than sample 0; return the same structure for each")
            for stack, value in zip(stacks, values, strict=True):
                part, _ = reader.leaf(value, index)
                if part.shape != stack.shape[1:] or part.dtype != stack.dtype:
                    reader.refuse(
                        index,
                        f"has a part of {_kind(part)}, where sample 0 has one of {_kind(stack[0])}; loader=resident stacks them into one "
                        "array: bring all to one shape and type (crop, resize, pad)",
                    )
                stack[index] = part
    leaves = [Leaf(stack.to(device), is_image) for stack, (_, is_image) in zip(stacks, first, strict=True)]
    return Stacked(leaves, form, np.arange(len(reader), dtype=np.int64))


class _Reader:
    """A set of the user's: what fails within is said with its name and the sample."""

    def __init__(self, data: Any) -> None:
        """Raises ValueError where it is no map-style set."""
        self.name = type(data).__name__
        for method in ("__len__", "__getitem__"):
            if not callable(getattr(type(data), method, None)):
                raise ValueError(f"data: {self.name} has no {method}; name a class with __len__ and __getitem__ (torch.utils.data.Dataset)")
        self._data = data
        try:
            self._length = len(data)
        except Exception as error:  # a user's code: whatever it raises is said with the set's name
            raise RuntimeError(f"data: len({self.name}) failed: {type(error).__name__}: {first_line(error)}") from error
        if self._length == 0:
            raise ValueError(f"data: {self.name} has no samples; name data that has some")

    def __len__(self) -> int:
        return self._length

    def flat(self, index: int) -> tuple[list[Any], Any]:
        """The leaves of a sample, and the form they make."""
        try:
            sample = self._data[index]
        except Exception as error:  # the same, with the sample's number
            raise RuntimeError(f"data: {self.name}[{index}] failed: {type(error).__name__}: {first_line(error)}") from error
        return pytree.tree_flatten(sample)

    def leaf(self, value: Any, index: int) -> tuple[torch.Tensor, bool]:
        """As data/leaf.py has it."""
        try:
            return leaf_of(value)
        except ValueError as error:
            self.refuse(index, f"has {error}; return numbers, arrays, tensors or images, in tuples, lists or dicts")

    def refuse(self, index: int, why: str) -> NoReturn:
        raise ValueError(f"data: {self.name}[{index}] {why}")


def _kind(value: torch.Tensor) -> str:
    return f"shape {tuple(value.shape)} and {str(value.dtype).removeprefix('torch.')}"


@contextlib.contextmanager
def _generators(seed: int, split: str) -> Iterator[None]:
    """Seeded for as long as the context lasts, and as before after it: what is drawn is the same on every rank and in every attempt."""
    kept, numbers = random.getstate(), np.random.get_state()
    word = int(order.words(1, order.READ, seed, SPLITS.index(split))[0])
    with torch.random.fork_rng(devices=[]):
        random.seed(word)
        np.random.seed(word % 2**32)
        torch.manual_seed(word % 2**63)
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(numbers)
