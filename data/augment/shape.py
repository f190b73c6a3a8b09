"""Where in an image what lies: crop, mirror, cutout, and any affine map, each image its own, in one call for the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from data.augment.chance import Chance
from data.options import whole
from data.vision.augment import reflect


class Crop:
    """Moved by up to `pad` pixels each way; beyond the border the image is reflected."""

    def __init__(self, pad: int = 4) -> None:
        """Raises ValueError."""
        whole("loader.augment: pad", pad, 0)
        self._pad = pad

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raises ValueError where the border is too wide to be a reflection."""
        if self._pad >= min(shape[1:]):
            most = min(shape[1:]) - 1
            raise ValueError(f"loader.augment: pad={self._pad}: images of {shape[1]}x{shape[2]} reflect {most} pixels; type pad={most}")

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        count, channels, height, width = images.shape
        down, right = (chance.below(2 * self._pad + 1)[:, None] - self._pad for _ in range(2))
        rows = chance.on(reflect(np.arange(height) + down, height))
        columns = chance.on(reflect(np.arange(width) + right, width))
        image, channel = torch.arange(count, device=images.device), torch.arange(channels, device=images.device)
        moved = images[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
        return moved, labels


class Flip:
    """Mirrored left to right, every other time."""

    def __init__(self, share: float = 0.5) -> None:
        """`share`: of the images. Raises ValueError."""
        self._share = checked_share(share)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        mirrored = chance.on(chance.uniform() < self._share).view(-1, 1, 1, 1)
        return torch.where(mirrored, images.flip(3), images), labels


class Cutout:
    """A square of the mean colour around a point of the image (DeVries and Taylor, 2017, https://arxiv.org/abs/1708.04552), cut at its
    edge."""

    def __init__(self, size: int = 16) -> None:
        """`size`: pixels of a side. Raises ValueError."""
        whole("loader.augment: size", size, 1)
        self._size = size

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = images.shape[2:]
        top, left = (chance.below(side) - self._size // 2 for side in (height, width))
        hole = inside(images, (top, top + self._size, left, left + self._size), chance)
        return torch.where(hole, chance.fill.to(images.dtype), images), labels


def checked_share(share: float) -> float:
    """Raises ValueError."""
    if isinstance(share, bool) or not 0 <= share <= 1:
        raise ValueError(f"loader.augment: share={share} is not possible; type a share of the images from 0 to 1")
    return share


def inside(images: torch.Tensor, box: Sequence[NDArray[np.int64]], chance: Chance) -> torch.Tensor:
    """Which pixels lie in a box of each image, (b, 1, H, W) bool. `box`: top, end, left, right; the ends are not in it."""
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
    ends = [chance.on(each)[:, None] for each in box]
    return ((rows >= ends[0]) & (rows < ends[1]))[:, None, :, None] & ((columns >= ends[2]) & (columns < ends[3]))[:, None, None, :]


def warped(images: torch.Tensor, maps: NDArray[np.float64], chance: Chance) -> torch.Tensor:
    """Each image by its own map (b, 2, 3), from where a pixel comes: as Pillow's AFFINE, in pixels from the upper left corner, between four
    neighbours. The grid is made element by element: torch's affine_grid is a product of matrices, which a GPU may compute in TF32."""
    height, width = images.shape[2:]
    scale = np.array([[2 / width], [2 / height]])
    maps = maps * scale - np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    across, down = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5 for side in (width, height))
    by_x, by_y, shift = (chance.on(maps[:, :, column], images)[:, None, None, :] for column in range(3))
    grid = by_x * across[:, None] + by_y * down[:, None, None] + shift
    fill = chance.fill.to(images.dtype)
    return functional.grid_sample(images - fill, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + fill
