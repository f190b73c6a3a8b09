"""What is drawn for each sample of a micro-batch: whole numbers made on the host by hashing, so that no device and no world has others."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data.processes.ahead import has_streams
from data.sampling.order import CHANCE, words, words_of


class Augmentation(Protocol):
    """One change of a micro-batch in training. One that needs colours says `pixels = True` in its class and is given images in 0..1, else
    they are as the model is given them. One that looks at partners says `pairs = True`: samples 2k and 2k+1 then belong together. One with
    a method `check(shape)` is asked before the start whether it takes images of (C, H, W): a ValueError says why not."""

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        """`images` (b, C, H, W) of floats, `labels` (b,) int64, or (b, classes) of floats behind a mixture; both on the device. What comes
        back is new; what was given stays as it is."""
        ...


class Chance:
    """What one augmentation is told of one micro-batch. Each call draws anew, for each sample: a function of (seed, epoch, its number,
    which augmentation of the list, which call)."""

    def __init__(
        self, places: NDArray[np.int64], key: tuple[int, int, int], device: torch.device, fill: torch.Tensor, classes: int
    ) -> None:
        """`places` (b,): the samples' numbers. `key`: seed, epoch, which augmentation."""
        self.fill = fill
        """What lies where no picture is, (C, 1, 1) or 0-d: the mean colour of the set."""
        self.classes = classes
        """0 where the set does not say how many."""
        self._places, self._device, self._drawn = places, device, 0
        self._first = words(1, CHANCE, *key)

    def uniform(self) -> NDArray[np.float64]:
        """In 0 to below 1, (b,)."""
        return (self._words() >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def below(self, number: int) -> NDArray[np.int64]:
        """Of 0..number-1, (b,)."""
        return (self.uniform() * number).astype(np.int64)

    def sign(self) -> NDArray[np.float64]:
        """1 or -1, (b,)."""
        return np.where(self.below(2) == 1, -1.0, 1.0)

    def on(self, values: NDArray[Any], like: torch.Tensor | None = None) -> torch.Tensor:
        """Of what is drawn or made of it a tensor on the device: fractions as float32, or as `like` is. On a GPU the host does not wait."""
        made = torch.from_numpy(np.ascontiguousarray(values))
        if made.is_floating_point():
            made = made.to(torch.float32)  # rounded once, whatever is computed in
        if self._device.type != "cpu":
            made = made.pin_memory().to(self._device, non_blocking=True) if has_streams(self._device) else made.to(self._device)
        return made if like is None else made.to(like.dtype)

    def each(self, values: NDArray[Any], images: torch.Tensor) -> torch.Tensor:
        """One number for each image, (b, 1, 1, 1)."""
        return self.on(values, images).view(-1, 1, 1, 1)

    def _words(self) -> NDArray[np.uint64]:
        self._drawn += 1
        return words_of(self._places, self._drawn, self._first)
