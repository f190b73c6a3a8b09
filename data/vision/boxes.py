"""Pictures with boxes on a device: a batch is a gather there, and is flipped, zoomed, moved and coloured as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from data.sampling.order import AUGMENT, words

Batch = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""Images float32 (b, 3, size, size) in channels_last memory, standardised. Of each as many boxes as the picture with the most has: `boxes`
float32 (b, boxes, 4): left, top, right, bottom in pixels; `labels` int64 (b, boxes), -1 where there is none; `ignored` bool (b, boxes)."""

MEAN, DEVIATION = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
"""Of ImageNet's pixels, 0..255: boxes say nothing of a border's share, so a mean of our own would."""
VISIBLE = 0.3
"""Of a box that is cut, the least share that is still sought; one of less is ignored."""
_DRAWS = 7


class Recipe(NamedTuple):
    """How training images are changed."""

    flip: bool = False
    """Mirror left to right, every other one."""
    scale: float = 0.0
    """Zoom from 1 / (1 + scale) to 1 + scale; what is larger than the frame is cropped anywhere, what is smaller lies anywhere in it."""
    colour: float = 0.0
    """Brightness, contrast and saturation, by up to this share each."""


class Pictures(NamedTuple):
    """All of a data set on one device."""

    images: torch.Tensor
    """uint8 (n, size, size, 3)"""
    boxes: torch.Tensor
    labels: torch.Tensor
    ignored: torch.Tensor
    """bool; these three as in a batch."""


class BoxSource:
    """Some of them, as a loader technique asks for it (data/loader.py)."""

    def __init__(self, data: Pictures, places: NDArray[np.int64], recipe: Recipe) -> None:
        self.places = places
        self._data, self._recipe = data, recipe
        self._mean, self._deviation = (torch.tensor(each, device=data.images.device) for each in (MEAN, DEVIATION))

    def batch(self, places: torch.Tensor) -> Batch:
        """Unchanged."""
        images, *targets = (each.index_select(0, places) for each in self._data)
        pixels = ((images - self._mean) / self._deviation).permute(0, 3, 1, 2)
        return pixels, dict(zip(("boxes", "labels", "ignored"), targets, strict=True))

    def epoch(self, seed: int, epoch: int) -> Callable[[torch.Tensor], Batch]:
        """Batches as that epoch changes them: a function of (seed, epoch, place)."""
        count = len(self._data.images)
        # 53 bits are what a float64 holds; a word for each draw
        drawn = (words(count * _DRAWS, AUGMENT, seed, epoch) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        table = torch.from_numpy(drawn.reshape(count, _DRAWS).astype(np.float32)).to(self._mean.device)

        def changed(places: torch.Tensor) -> Batch:
            images, targets = self.batch(places)
            flip, zoom, right, down, *colour = table.index_select(0, places).unbind(1)
            images, targets = self._moved(images, targets, flip, zoom, right, down)
            return self._coloured(images, colour), targets

        return changed

    def _moved(
        self,
        images: torch.Tensor,
        targets: dict[str, torch.Tensor],
        flip: torch.Tensor,
        zoom: torch.Tensor,
        right: torch.Tensor,
        down: torch.Tensor,
    ) -> Batch:
        """Draws (b,) from 0 to 1."""
        recipe, size = self._recipe, images.shape[-1]
        if not (recipe.flip or recipe.scale):
            return images, targets
        mirror = 1 - 2 * (flip < 0.5).float() if recipe.flip else torch.ones_like(flip)
        factor = (1 + recipe.scale) ** (2 * zoom - 1)
        shift = torch.stack((right, down), 1) * (1 - factor)[:, None]  # in sizes of the frame
        # What is at x before is at factor * x + shift after; a grid asks the other way round, and its frame is from -1 to 1.
        across, upright = mirror / factor, 1 / factor
        rest = (1 - 2 * shift) / factor[:, None] - 1
        zero = torch.zeros_like(across)
        rows = (torch.stack((across, zero, rest[:, 0]), 1), torch.stack((zero, upright, rest[:, 1]), 1))
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False).contiguous(memory_format=torch.channels_last)
        boxes = targets["boxes"] * factor[:, None, None] + size * torch.cat((shift, shift), 1)[:, None, :]
        mirrored = torch.stack((size - boxes[..., 2], boxes[..., 1], size - boxes[..., 0], boxes[..., 3]), -1)
        boxes = torch.where(mirror[:, None, None] < 0, mirrored, boxes)
        return moved, _cut(boxes, targets, size)

    def _coloured(self, images: torch.Tensor, draws: list[torch.Tensor]) -> torch.Tensor:
        if not self._recipe.colour:
            return images
        contrast, brightness, saturation = (self._recipe.colour * (2 * draw - 1)[:, None, None, None] for draw in draws)
        grey = images.mean(1, keepdim=True)
        return (grey + (images - grey) * (1 + saturation)) * (1 + contrast) + brightness


def _cut(boxes: torch.Tensor, targets: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """At the frame's edges. What is outside is none any more; of what little is left of, nothing is asked."""
    cut = boxes.clamp(0, size)
    left = _area(cut) / _area(boxes).clamp_min(1e-6)
    labels = torch.where(left > 0, targets["labels"], -1)
    is_box = labels >= 0
    return {
        "boxes": torch.where(is_box[..., None], cut, 0.0),
        "labels": labels,
        "ignored": is_box & (targets["ignored"] | (left < VISIBLE)),
    }


def _area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
