"""A map-style data set of the user's: its samples, its splits, and what its code draws at random."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from data.sampling import order
from data.sampling.leaf import leaf_of
from data.store.files import first_line

Say = Callable[[str], None]

FAULTS = (Exception, SystemExit, GeneratorExit)
"""What a user's code may raise and is said with its name: an exit that it asks for would be the end of the run without a word."""


class Samples:
    """What fails within the set is said with its name and the sample."""

    def __init__(self, data: Any) -> None:
        """Raises ValueError where it is no map-style set; RuntimeError where its own code fails."""
        self.name = type(data).__name__
        for method in ("__len__", "__getitem__"):
            if not callable(getattr(type(data), method, None)):
                raise ValueError(f"data: {self.name} has no {method}; name a class with __len__ and __getitem__ (torch.utils.data.Dataset)")
        self.data = data
        self._length = self.counted()
        if self._length == 0:
            raise ValueError(f"data: {self.name} has no samples; name data that has some")

    def __len__(self) -> int:
        """As it was when the set was first seen."""
        return self._length

    def counted(self) -> int:
        """As the set says now. Raises RuntimeError."""
        try:
            return len(self.data)
        except FAULTS as error:  # a user's code: whatever it raises is said with the set's name
            raise RuntimeError(f"data: len({self.name}) failed: {type(error).__name__}: {first_line(error)}") from error

    def same_length(self) -> None:
        """Raises RuntimeError where there are more samples now, or fewer."""
        if (now := self.counted()) != len(self):
            raise RuntimeError(
                f"data: {self.name} had {len(self):,} samples when it was opened and has {now:,} now; which sample comes when hangs on "
                "how many there are: let len stay what it is"
            )

    def failed(self, what: str, error: BaseException) -> RuntimeError:
        """What is said of an error of the set's own code, behind its name."""
        return RuntimeError(f"data: {self.name}{what} failed: {type(error).__name__}: {first_line(error)}")

    def __getitem__(self, index: int) -> Any:
        """As the set returns it. Raises RuntimeError."""
        try:
            return self.data[index]
        except FAULTS as error:  # the same, with the sample's number
            raise self.failed(f"[{index}]", error) from error

    def flat(self, index: int) -> tuple[list[Any], Any]:
        """The leaves of a sample, and the form they make."""
        return pytree.tree_flatten(self[index])

    def leaf(self, value: Any, index: int) -> tuple[torch.Tensor, bool]:
        """As data/sampling/leaf.py has it."""
        try:
            return leaf_of(value)
        except ValueError as error:
            self.refuse(index, f"has {error}; return numbers, arrays, tensors or images, in tuples, lists or dicts")

    def refuse(self, index: int, why: str) -> NoReturn:
        raise ValueError(f"data: {self.name}[{index}] {why}")

    def alike(self, one: torch.Tensor, index: int, other: torch.Tensor, of: int, instead: str) -> None:
        """Raises ValueError where two samples' parts cannot lie in one array."""
        if one.shape != other.shape or one.dtype != other.dtype:
            self.refuse(index, f"has a part of {_kind(one)}, where sample {of} has one of {_kind(other)}; {instead}")


def by_split(data: Any) -> Mapping[str, Any]:
    """`data`: one set, which is to train on, or a dict of one for each split that there is."""
    return data if isinstance(data, dict) else {"train": data}


def held_out(lengths: Mapping[str, int], shares: Mapping[str, float], seed: int, say: Say) -> dict[str, tuple[str, NDArray[np.int64]]]:
    """By split: the set it is part of, and the places of its samples in it, in order. `lengths`: of the sets that there are; `shares`: of
    the training samples, to take for a split that there is none of."""
    found = {split: (split, np.arange(length, dtype=np.int64)) for split, length in lengths.items()}
    whole = lengths["train"]
    counts = {split: count for split, share in shares.items() if split not in found and (count := round(share * whole))}
    if not counts:  # of ten million samples an order takes a second
        return found
    places = order.shuffled(whole, order.SPLIT, seed)
    for split, count in counts.items():
        found[split], places = ("train", np.sort(places[:count])), places[count:]
        say(f"data: no {split} of its own: {count:,} of {whole:,} samples are held out, by seed (loader.{split}={shares[split]:g})")
    found["train"] = "train", np.sort(places)
    return found


def plant(word: int) -> None:
    """A seed of 64 bits, in each of a CPU's generators. torch.manual_seed would ask for CUDA's too, in 100 times the time."""
    random.seed(word)
    np.random.seed(word % 2**32)
    torch.default_generator.manual_seed(word % 2**63)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Whatever is drawn within, or planted, nobody's numbers are used up by it."""
    kept, numbers, state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(numbers)
        torch.set_rng_state(state)


def _kind(value: torch.Tensor) -> str:
    return f"shape {tuple(value.shape)} and {str(value.dtype).removeprefix('torch.')}"
