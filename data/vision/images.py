"""Images in one array, on a device as uint8: a batch is a gather there, augmented as a whole.

On a CPU the device tensor is the memory-mapped cache itself: no copy, and all processes of a node share its pages. On a GPU it is one
upload, and a step costs no host-to-device traffic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data.vision.augment import CropFlip, cut_out_, draws

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images float32 (b, channels, height, width) in channels_last memory, standardised; labels int64 (b,)."""


class Recipe(NamedTuple):
    """How training images are changed."""

    pad: int = 0
    """Largest shift of a crop in pixels; 0 for none."""
    flip: bool = False
    """Mirror left to right in every other epoch."""
    cutout: int = 0
    """Side in pixels of the square that is set to the mean; 0 for none."""


class Images:
    """Images and labels of one file of a dataset on one device, and their standardisation."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        device: torch.device | str,
    ) -> None:
        """`images` (n, height, width, channels), `labels` (n,); `mean` and `std` (channels,) in units of a pixel, 0..255."""
        self.images = torch.from_numpy(images).to(device)
        self.labels = torch.from_numpy(labels).to(device)
        self.device = self.images.device
        _, self.height, self.width, self.channels = images.shape
        self.mean, self.std = mean / 255, std / 255
        # One value per byte of an image: broadcasting over a last axis of 3 would be several times slower.
        self._mean = torch.from_numpy(np.tile(mean, self.height * self.width).astype(np.float32)).to(device)
        self._scale = torch.from_numpy(np.tile(1.0 / std, self.height * self.width).astype(np.float32)).to(device)

    def standardise(self, batch: torch.Tensor) -> torch.Tensor:
        """(b, height, width, channels) uint8 -> float32, (pixel - mean) / std per channel, same shape.

        Two roundings per pixel and no reduction, so a sample's floats do not depend on the batch around it.
        """
        pixels = batch.flatten(1).to(torch.float32).sub_(self._mean).mul_(self._scale)
        return pixels.view(batch.shape)


class ImageSource:
    """A part of some Images, as a loader technique asks for it (data/loader.py): plain for evaluation, by a recipe for training."""

    def __init__(self, data: Images, places: NDArray[np.int64], recipe: Recipe) -> None:
        """Raises ValueError where the recipe does not fit the images."""
        self.places = places
        self.mean, self.std = data.mean, data.std
        self._data, self._recipe = data, recipe
        self._crop = CropFlip(data.height, data.width, data.channels, recipe.pad, data.device)

    @property
    def labels(self) -> NDArray[np.int64]:
        return self._data.labels.cpu().numpy()[self.places]

    def batch(self, places: torch.Tensor) -> Batch:
        """Unchanged images."""
        data = self._data
        # A permuted view of NHWC memory is what torch calls channels_last: no copy here, none in the first convolution.
        return data.standardise(data.images.index_select(0, places)).permute(0, 3, 1, 2), data.labels.index_select(0, places)

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], Batch]:
        """Batches as that epoch changes their images: a function of (seed, epoch, place)."""
        data, recipe = self._data, self._recipe
        table = draws(seed, epoch, len(data.labels), pad=recipe.pad, flip=recipe.flip, height=data.height, width=data.width)
        drawn = [torch.from_numpy(column).to(data.device) for column in table]
        return lambda places: self._changed(places, drawn)

    def _changed(self, places: torch.Tensor, drawn: list[torch.Tensor]) -> Batch:
        data, recipe = self._data, self._recipe
        images = data.images.index_select(0, places)
        top, left, flip, hole_y, hole_x = (column.index_select(0, places) for column in drawn)
        if recipe.pad or recipe.flip:
            images = self._crop(images, top, left, flip)
        pixels = data.standardise(images)
        if recipe.cutout:
            cut_out_(pixels, hole_y, hole_x, recipe.cutout)
        return pixels.permute(0, 3, 1, 2), data.labels.index_select(0, places)
