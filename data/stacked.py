"""A map-style data set, read once and stacked: each leaf of its samples becomes one tensor on the device.

Each sample is read once. What `__getitem__` draws at random is drawn then, from a seed of its own, and stays as it is in all epochs.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from data import order
from data.files import notice


class Stacked:
    """Tensors of all samples, and the places of a split among them: a Source of data/loader.py."""

    def __init__(self, leaves: list[torch.Tensor], form: Any, places: NDArray[np.int64]) -> None:
        self.places = places
        self._leaves, self._form = leaves, form

    @classmethod
    def read(cls, data: Any, split: str, device: torch.device | str, seed: int) -> Stacked:
        """Of a whole map-style set. Raises ValueError that names the sample which cannot be stacked."""
        count = len(data)
        if count < 1:
            raise ValueError(f"data: the {split} part has no samples; name one that has")
        with _generators(order.words(1, order.READ, seed, len(split))[0]):
            values, form = pytree.tree_flatten(data[0])
            first = [_tensor(value, 0) for value in values]
            _check_room(first, count, device)
            leaves = [torch.empty((count, *leaf.shape), dtype=leaf.dtype) for leaf in first]
            for index in range(count):
                values, other = (values, form) if index == 0 else pytree.tree_flatten(data[index])
                if other != form:
                    raise ValueError(f"data: sample {index} has another structure than sample 0; return the same from __getitem__ for each")
                for leaf, value in zip(leaves, values, strict=True):
                    tensor = _tensor(value, index)
                    if tensor.shape != leaf.shape[1:] or tensor.dtype != leaf.dtype:
                        raise ValueError(
                            f"data: sample {index} has a part of shape {tuple(tensor.shape)} and {tensor.dtype}, sample 0 one of "
                            f"{tuple(leaf.shape[1:])} and {leaf.dtype}; bring them to one shape in __getitem__ (pad, or crop)"
                        )
                    leaf[index] = tensor
        return cls([leaf.to(device) for leaf in leaves], form, np.arange(count, dtype=np.int64))

    def of(self, places: NDArray[np.int64]) -> Stacked:
        """Some of them, in the order they lie in."""
        return Stacked(self._leaves, self._form, np.sort(places))

    def batch(self, places: torch.Tensor) -> Any:
        return pytree.tree_unflatten([leaf.index_select(0, places) for leaf in self._leaves], self._form)

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], Any]:
        return self.batch


def sources(data: Any, device: torch.device, seed: int, held_out: Mapping[str, float]) -> dict[str, Stacked]:
    """By split. `data`: one set, or one for each split that there is; `held_out`: the share of the training samples to take for each split
    that there is none of. Raises ValueError that names the sample which cannot be stacked."""
    sets: Mapping[str, Any] = data if isinstance(data, Mapping) else {"train": data}
    found = {split: Stacked.read(each, split, device, seed) for split, each in sets.items()}
    whole, places = found["train"], order.shuffled(len(sets["train"]), order.SPLIT, seed)
    for split, share in held_out.items():
        if split in sets or not share:
            continue
        count = round(share * len(whole.places))
        found[split], places = whole.of(places[:count]), places[count:]
        notice(f"{count} of {len(whole.places)} samples are held out as {split}, by seed {seed} (loader.{split}={share:g})")
    found["train"] = whole.of(places)
    return found


def _tensor(value: Any, index: int) -> torch.Tensor:
    """A leaf of a sample: numbers and arrays as a model wants them, whole numbers int64, what is float64 float32."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return torch.tensor(int(value))
    if isinstance(value, bool | float | np.number | np.bool_ | np.ndarray):
        value = torch.as_tensor(value)
        return value.float() if value.dtype == torch.float64 else value
    if isinstance(value, torch.Tensor):
        return value
    raise ValueError(f"data: sample {index} has a {type(value).__name__}; return tensors, arrays or numbers from __getitem__")


def _check_room(first: list[torch.Tensor], count: int, device: torch.device | str) -> None:
    """Raises ValueError where all samples would not fit: a machine that swaps is worse than a word."""
    needed, free = count * sum(leaf.nbytes for leaf in first), _free(device)
    if needed > free:
        raise ValueError(
            f"data: {count:,} samples of {needed // count:,} bytes need {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free; "
            "train on fewer, or make samples smaller"
        )


def _free(device: torch.device | str) -> float:
    """Bytes; infinity where nobody says."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError), Path("/proc/meminfo").open(encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return float("inf")


@contextlib.contextmanager
def _generators(seed: np.uint64) -> Iterator[None]:
    """Seeded for as long as the context lasts, and as before after it: what is drawn is the same on every rank and in every attempt."""
    kept, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(int(seed))
        np.random.seed(int(seed) % 2**32)
        torch.manual_seed(int(seed) % 2**63)
        try:
            yield
        finally:
            random.setstate(kept)
            np.random.set_state(numbers)
