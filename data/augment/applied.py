"""The augmentations of a run (`loader.augment`), on its micro-batches, on the device where they are. Training alone has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch

from data.augment.chance import Augmentation, Chance
from data.sampling.updates import Updates
from data.store.files import first_line

EXAMPLES = 16
"""Samples that are looked at, and tried, before anything starts."""
NEAR = 0.02
"""By which a colour may lie beyond 0..1: rounding, and what resizing overshoots."""


class Applied:
    """A function of (seed, epoch, the samples' numbers) and of which of them are neighbours."""

    def __init__(self, steps: Sequence[Augmentation], seed: int, updates: Updates, said: Sequence[Any], example: Any) -> None:
        """`said`: who may say `mean`, `std`, `num_classes` and `class_names`, the first that does. `example`: some training samples, on the
        device; none of them counts. Raises ValueError where they are no images with labels, or do not fit."""
        self._steps, self._seed, self._said, self._name = tuple(steps), seed, said, type(said[-1]).__name__
        images, labels = self._images(example)
        self._classes = self._counted()
        self._check_pairs(updates)
        self._pixels = any(getattr(step, "pixels", False) for step in steps)
        self._mean, self._std = self._colours(images)
        self._fill = self._mean if self._pixels else torch.zeros((), device=images.device)
        for step in steps:
            if hasattr(step, "check"):
                cast("Any", step).check(tuple(images.shape[1:]))
        self._try((images, labels))

    def over(self, batches: Iterable[Any], places: Iterable[Any], epoch: int) -> Iterator[Any]:
        """`places`: of the samples of each batch, on the host."""
        for batch, of in zip(batches, places, strict=True):
            yield self(batch, of, epoch)

    def __call__(self, batch: Any, places: Any, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = batch
        is_last = not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last)
        if self._pixels:
            images = images * self._std.to(images.dtype) + self._mean.to(images.dtype)
        numbers = np.asarray(places, np.int64)
        for number, step in enumerate(self._steps):
            chance = Chance(numbers, (self._seed, epoch, number), images.device, self._fill, self._classes)
            images, labels = step(images, labels, chance)
        if self._pixels:
            images = (images - self._mean.to(images.dtype)) / self._std.to(images.dtype)
        return images.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format), labels

    def _images(self, example: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Raises ValueError where that is not what there is."""
        parts = list(example) if isinstance(example, tuple | list) else [example]
        leaves = [each for each in parts if isinstance(each, torch.Tensor)]
        is_pair = len(parts) == len(leaves) == 2 and leaves[0].ndim == 4 and leaves[0].is_floating_point()
        if not is_pair or leaves[1].ndim != 1 or leaves[1].dtype != torch.int64:
            found = ", ".join(map(_kind, parts))
            raise ValueError(
                f"loader.augment is for samples of an image (C, H, W) of floats and a class, and {self._name} has {found}; type "
                "loader.augment=null"
            )
        return leaves[0], leaves[1]

    def _counted(self) -> int:
        """How many classes there are, 0 where nobody says. Raises ValueError where that has to be known."""
        found = self._of("num_classes") or len(self._of("class_names") or ())
        if not found and any(getattr(step, "pairs", False) for step in self._steps):
            raise ValueError(
                f"loader.augment: labels cannot be mixed, for {self._name} does not say how many classes it has; give it an attribute "
                "num_classes, or leave the mixture out"
            )
        return int(found)

    def _check_pairs(self, updates: Updates) -> None:
        """Raises ValueError where micro-batches are odd: a pair would be in two of them."""
        parts = updates.size * updates.accumulate
        if any(getattr(step, "pairs", False) for step in self._steps) and updates.batch_size // parts % 2:
            near = max(1, round(updates.batch_size / (2 * parts))) * 2 * parts
            raise ValueError(
                f"loader.augment: a mixture needs micro-batches of an even number of samples, and train.batch_size={updates.batch_size} "
                f"makes some of {updates.batch_size // parts}; type train.batch_size={near}, or leave the mixture out"
            )

    def _colours(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each channel, (C, 1, 1): what was taken off in standardising, and by what was divided; 0 and 1 where nobody says and colours
        lie in 0..1. Raises ValueError where an augmentation needs colours, and these are none."""
        channels = images.shape[1]
        kept = [self._of(name) for name in ("mean", "std")]
        given = [np.asarray(each if each is not None else default, np.float64) for each, default in zip(kept, (0.0, 1.0), strict=True)]
        if any(each.shape not in ((), (channels,)) for each in given) or not (given[1] > 0).all() or (kept[0] is None) != (kept[1] is None):
            raise ValueError(
                f"loader.augment: {self._name}.mean and .std are not {channels} number(s) each, one for a channel, in 0..1; mend them"
            )
        mean, std = (torch.from_numpy(np.broadcast_to(each, channels).copy()).to(images).view(-1, 1, 1) for each in given)
        pixels = images * std + mean
        low, high = float(pixels.min()), float(pixels.max())
        if self._pixels and not (low >= -NEAR and high <= 1 + NEAR):
            said = "says neither mean nor std" if kept[0] is None else "says another mean and std than it takes off"
            raise ValueError(
                f"loader.augment needs colours, 0..1, and those of {self._name} lie in {low:.3g}..{high:.3g}, for it {said}; give it "
                "attributes mean and std, what is taken off each channel and by what it is then divided"
            )
        return mean, std

    def _of(self, name: str) -> Any:
        return next((found for each in self._said if (found := getattr(each, name, None)) is not None), None)

    def _try(self, example: tuple[torch.Tensor, torch.Tensor]) -> None:
        """On an even number of samples. Raises ValueError: an augmentation may be a user's own."""
        images, labels = example
        even = max(1, len(images) // 2 * 2)
        try:
            made, classes = self((images[:even], labels[:even]), np.arange(even), 0)
        except Exception as error:  # whatever a user's code raises is said with the key
            names = ", ".join(type(step).__name__ for step in self._steps)
            raise ValueError(f"loader.augment ({names}) failed: {type(error).__name__}: {first_line(error)}") from error
        if len(made) != even or len(classes) != even or not made.is_floating_point():
            raise ValueError("loader.augment: what comes back is not as many images of floats, and labels, as were given; mend it")


def applied(asked: Any, seed: int, updates: Updates, said: Sequence[Any], example: Callable[[], Any]) -> Applied | None:
    """None where nothing is asked for, which then costs nothing. `asked`: one augmentation, or a list of them, in the order in which they
    come. Raises ValueError."""
    steps: list[Any] = [] if asked is None else list(asked) if isinstance(asked, list | tuple) else [asked]
    if not all(callable(step) for step in steps):
        raise ValueError("loader.augment: not possible; type calls of classes, such as [{_target_: data.augment.mix.Mix}], or null")
    return Applied(steps, seed, updates, said, example()) if steps else None


def _kind(part: Any) -> str:
    """What a sample has of it."""
    if not isinstance(part, torch.Tensor):
        return f"a {type(part).__name__}"
    return f"{tuple(part.shape[1:])} {str(part.dtype).removeprefix('torch.')}"
