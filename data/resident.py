"""Loader technique: the whole dataset lives on the device as uint8, and a batch is a gather there.

On a CPU the device tensor is the memory-mapped cache itself: no copy, and all processes of a node share its pages. On a GPU
it is one upload. There are no loader workers, so nothing has to be seeded, killed or kept alive, and a step costs no
host-to-device traffic. Data larger than memory needs another technique with the same two classes' surface (`samples`,
`steps_per_epoch`, `steps(epoch, start)`; `samples` and iteration): the loop sees no more than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment import CropFlip, cut_out_, draws
from data.order import epoch_order, share

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


class Resident:
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
        # One value per byte of an image: broadcasting over a last axis of 3 would be several times slower.
        self._mean = torch.from_numpy(np.tile(mean, self.height * self.width).astype(np.float32)).to(device)
        self._scale = torch.from_numpy(np.tile(1.0 / std, self.height * self.width).astype(np.float32)).to(device)

    def standardise(self, batch: torch.Tensor) -> torch.Tensor:
        """(b, height, width, channels) uint8 -> float32, (pixel - mean) / std per channel, same shape.

        Two roundings per pixel and no reduction, so a sample's floats do not depend on the batch around it.
        """
        pixels = batch.flatten(1).to(torch.float32).sub_(self._mean).mul_(self._scale)
        return pixels.view(batch.shape)


class TrainLoader:
    """Training batches: a pure function of (seed, epoch, step, rank, world), resumable at any step of any epoch."""

    def __init__(
        self,
        data: Resident,
        part: NDArray[np.int64],
        recipe: Recipe,
        *,
        batch_size: int,
        accumulate: int,
        rank: int,
        world: int,
        seed: int,
    ) -> None:
        """`part`: sample indices to train on. `batch_size` counts the samples of one optimizer step over the whole world.

        Raises ValueError where a step cannot be cut into `world * accumulate` equal micro-batches or the part is smaller
        than one step.
        """
        self.samples = len(part)
        if batch_size < 1 or batch_size % (world * accumulate):
            raise ValueError(
                f"train.batch_size={batch_size}: a step is shared by {world} process(es) in {accumulate} micro-batch(es) "
                f"each, which needs a multiple of {world * accumulate}; type one of those, e.g. train.batch_size="
                f"{max(1, round(batch_size / (world * accumulate))) * world * accumulate}"
            )
        self.steps_per_epoch = self.samples // batch_size
        if self.steps_per_epoch == 0:
            raise ValueError(
                f"train.batch_size={batch_size}: the training part has {self.samples} samples, less than one step; "
                f"type train.batch_size={self.samples // (world * accumulate) * world * accumulate or 1} or smaller"
            )
        self._data, self._part, self._recipe, self._seed = data, part, recipe, seed
        self._batch, self._accumulate, self._rank, self._world = batch_size, accumulate, rank, world
        self._crop = CropFlip(data.height, data.width, data.channels, recipe.pad, data.device)

    def steps(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, ...]]:
        """The steps `start`, start+1, … of `epoch`: one tuple of `accumulate` micro-batches for each.

        Step g of the epoch uses order[g*B:(g+1)*B]; micro-batch a of rank r is the (a*world + r)-th of its equal chunks.
        Samples that fill no whole step are left for another epoch's order.
        """
        data, micro = self._data, self._batch // (self._world * self._accumulate)
        order = torch.from_numpy(self._part[epoch_order(self._seed, epoch, self.samples)]).to(data.device)
        table = draws(
            self._seed, epoch, len(data.labels),
            pad=self._recipe.pad, flip=self._recipe.flip, height=data.height, width=data.width,
        )  # fmt: skip
        drawn = [torch.from_numpy(column).to(data.device) for column in table]
        for step in range(start, self.steps_per_epoch):
            chunks = range(self._rank, self._world * self._accumulate, self._world)
            begins = [step * self._batch + chunk * micro for chunk in chunks]
            yield tuple(self._micro_batch(order[begin : begin + micro], drawn) for begin in begins)

    def _micro_batch(self, index: torch.Tensor, drawn: list[torch.Tensor]) -> Batch:
        data, recipe = self._data, self._recipe
        images = data.images.index_select(0, index)
        top, left, flip, hole_y, hole_x = (column.index_select(0, index) for column in drawn)
        if recipe.pad or recipe.flip:
            images = self._crop(images, top, left, flip)
        pixels = data.standardise(images)
        if recipe.cutout:
            cut_out_(pixels, hole_y, hole_x, recipe.cutout)
        # A permuted view of NHWC memory is what torch calls channels_last: no copy here, none in the first convolution.
        return pixels.permute(0, 3, 1, 2), data.labels.index_select(0, index)


class EvalLoader:
    """This rank's share of a part, in order and unchanged; every sample exactly once over the world. Re-iterable."""

    def __init__(self, data: Resident, part: NDArray[np.int64], *, rank: int, world: int, batch_size: int) -> None:
        """`part`: sample indices of the whole part. Shares differ by at most one sample, and may be empty."""
        self.samples = len(part)
        self._data, self._batch = data, batch_size
        self._index = torch.from_numpy(part[share(len(part), rank, world)]).to(data.device)

    def __iter__(self) -> Iterator[Batch]:
        for index in self._index.split(self._batch) if len(self._index) else ():
            images = self._data.standardise(self._data.images.index_select(0, index))
            yield images.permute(0, 3, 1, 2), self._data.labels.index_select(0, index)

    def __len__(self) -> int:
        """Batches on this rank."""
        return -(-len(self._index) // self._batch)
