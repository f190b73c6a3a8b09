"""Common corruptions (Hendrycks and Dietterich, 2019, https://arxiv.org/abs/1903.12261) of images (N, C, H, W) in 0..1, in five severities.

Nine of the paper's 15, and three of the four that it keeps for validation (speckle noise, Gaussian blur, saturate). Not here: glass blur,
zoom blur, snow, frost, fog, elastic transform; spatter of the four. Each severity's numbers are those of CIFAR-10-C, from its authors' code
(https://github.com/hendrycks/robustness, ImageNet-C/create_c/make_cifar_c.py); lengths in pixels are scaled by the shorter side over 32.
What differs from theirs: results are not rounded to 8 bits (but by pixelate and jpeg), and motion blur is our own line of half a Gaussian
and not ImageMagick's. Its severities 3 and 4 differ in the length of the line alone, beyond three deviations: they are the same here.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from launcher.train.robust.chance import Chance

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 32
"""Of the images that lengths are for."""

Corruption = Callable[[torch.Tensor, Any, Chance], torch.Tensor]


def corrupted(kind: str, images: torch.Tensor, severity: int, chance: Chance) -> torch.Tensor:
    """The same shape, in 0..1 again. `images` of the channels that `kinds` was asked for; what is drawn comes from `chance`."""
    change, strengths = _ALL[kind]
    return change(images, strengths[severity - 1], chance).clamp(0, 1)


def kinds(channels: int) -> tuple[str, ...]:
    """That images of so many channels can have: of one channel none has a saturation, and Pillow knows one and three."""
    without = {1: ("saturate",), 3: ()}.get(channels, ("saturate", "pixelate", "jpeg"))
    return tuple(kind for kind in _ALL if kind not in without)


def _gaussian_noise(images: torch.Tensor, scale: float, chance: Chance) -> torch.Tensor:
    return images + scale * chance.normal(images)


def _shot_noise(images: torch.Tensor, photons: float, chance: Chance) -> torch.Tensor:
    return chance.poisson(images * photons) / photons


def _impulse_noise(images: torch.Tensor, amount: float, chance: Chance) -> torch.Tensor:
    """Salt and pepper, each number for itself."""
    drawn = chance.uniform(images)
    return torch.where(drawn < amount, (drawn < amount / 2).to(images.dtype), images)


def _speckle_noise(images: torch.Tensor, scale: float, chance: Chance) -> torch.Tensor:
    return images + images * scale * chance.normal(images)


def _gaussian_blur(images: torch.Tensor, sigma: float, chance: Chance) -> torch.Tensor:
    sigma = sigma * _scale(images)
    return _blurred(images, _of_gaussian(sigma, math.ceil(4 * sigma)))


def _defocus_blur(images: torch.Tensor, disk: tuple[float, float], chance: Chance) -> torch.Tensor:
    """A disk of a radius, and a small Gaussian over its edge (3 x 3)."""
    radius, softness = disk[0] * _scale(images), disk[1]
    reach = math.ceil(radius)
    away = torch.arange(-reach, reach + 1.0).square()
    sharp = (away[:, None] + away <= radius**2).float()
    kernel = functional.conv2d((sharp / sharp.sum())[None, None], _of_gaussian(softness, 1)[None, None], padding=2)
    return _blurred(images, kernel[0, 0])


def _motion_blur(images: torch.Tensor, length: tuple[float, float], chance: Chance) -> torch.Tensor:
    """Along a line from each pixel, at an angle of -45 to 45 degrees, by half a Gaussian."""
    radius, sigma = (each * _scale(images) for each in length)
    reach = math.ceil(min(2 * radius, 3 * sigma))
    angle = (chance.uniform(images[:, 0, 0, 0]).cpu() - 0.5) * math.pi / 2
    along = torch.arange(reach + 1.0)
    weights = torch.exp(-along.square() / (2 * sigma**2))
    rows, columns = (torch.outer(way, along).round().long() + reach for way in (angle.sin(), angle.cos()))
    side = 2 * reach + 1
    kernels = torch.zeros(len(images), side * side).scatter_add_(1, rows * side + columns, (weights / weights.sum()).expand_as(rows))
    return _blurred(images, kernels.view(-1, side, side))


def _brightness(images: torch.Tensor, more: float, chance: Chance) -> torch.Tensor:
    """More value, of hue, saturation and value."""
    value = images.amax(1, keepdim=True)
    brighter = (value + more).clamp(max=1)
    return torch.where(value > 0, images * brighter / value.clamp_min(1e-12), brighter)


def _contrast(images: torch.Tensor, share: float, chance: Chance) -> torch.Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * share + mean


def _saturate(images: torch.Tensor, change: tuple[float, float], chance: Chance) -> torch.Tensor:
    """More or less saturation. What is grey has the hue 0, red, as the authors' library has it."""
    factor, more = change
    value = images.amax(1, keepdim=True)
    saturation = 1 - images.amin(1, keepdim=True) / value.clamp_min(1e-12)
    wanted = (saturation * factor + more).clamp(0, 1)
    coloured = value - (value - images) * wanted / saturation.clamp_min(1e-12)
    red = value * torch.cat((torch.ones_like(wanted), 1 - wanted, 1 - wanted), 1)
    return torch.where(saturation > 0, coloured, red)


def _pixelate(images: torch.Tensor, share: float, chance: Chance) -> torch.Tensor:
    from PIL import Image

    def smaller(picture: Any) -> Any:
        size = [max(1, int(side * share)) for side in picture.size]
        return picture.resize(size, Image.Resampling.BOX).resize(picture.size, Image.Resampling.BOX)

    return _by_pillow(images, smaller)


def _jpeg(images: torch.Tensor, quality: int, chance: Chance) -> torch.Tensor:
    from PIL import Image

    def stored(picture: Any) -> Any:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file, formats=["JPEG"])

    return _by_pillow(images, stored)


def _by_pillow(images: torch.Tensor, change: Callable[[Any], Any]) -> torch.Tensor:
    """Each as a picture of 8 bits."""
    from PIL import Image

    rows = (images.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu().numpy()
    made = [np.asarray(change(Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row))) for row in rows]
    return (torch.from_numpy(np.stack(made)).view(rows.shape).permute(0, 3, 1, 2) / 255).to(images)


def _scale(images: torch.Tensor) -> float:
    return min(images.shape[2:]) / SIDE


def _of_gaussian(sigma: float, reach: int) -> torch.Tensor:
    """(2 reach + 1, the same), of sum 1."""
    line = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    return torch.outer(line, line) / line.sum() ** 2


def _blurred(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """`kernel` (side, side), or one for each image, (N, side, side). The edge goes on beyond the image."""
    count, channels, height, width = images.shape
    reach = kernel.shape[-1] // 2
    weights = kernel.to(images).expand(count, *kernel.shape[-2:]).repeat_interleave(channels, 0)[:, None]
    wide = functional.pad(images, (reach,) * 4, mode="replicate").reshape(1, count * channels, height + 2 * reach, width + 2 * reach)
    return functional.conv2d(wide, weights, groups=count * channels).view(images.shape)


_ALL: dict[str, tuple[Corruption, tuple[Any, ...]]] = {
    "gaussian_noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": (_speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "gaussian_blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "saturate": (_saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": (_jpeg, (80, 65, 58, 50, 40)),
}
