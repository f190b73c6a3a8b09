"""What is done to the colours of a batch: images (b, C, H, W) in 0..1, `amount` (b, 1, 1, 1), each image's own.

As Pillow's ImageEnhance and ImageOps have it, on fractions: the same to one or two of 255 levels. Of one channel grey is the channel
itself. Nothing here is a convolution or a product of matrices, which a GPU may compute in TF32.
"""

from __future__ import annotations

import torch

from data.augment.chance import Chance

_GREY = (0.299, 0.587, 0.114)
"""ITU-R 601-2, as Pillow converts to L."""


class Colour:
    """Brightness, contrast, saturation and hue, in that order, each by an amount of the image's own."""

    pixels = True

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4, hue: float = 0.0) -> None:
        """Each of the first three is multiplied by something in 1 - x to 1 + x, and no less than 0; hue is turned by up to `hue` of a whole
        turn either way, at most 0.5. Raises ValueError naming the option."""
        self._amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, amount in {**self._amounts, "hue": hue}.items():
            if isinstance(amount, bool) or not amount >= 0 or (name == "hue" and amount > 0.5):
                raise ValueError(f"loader.augment: {name}={amount} is not possible; type a number from 0{' to 0.5' * (name == 'hue')}")
        self._hue = hue

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raises ValueError for images that are neither grey nor of three colours."""
        needs_colours(type(self).__name__, shape)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        for name, most in self._amounts.items():
            least = max(0.0, 1 - most)
            amount = least + (1 + most - least) * chance.uniform()
            if most:
                images = BLENDS[name](images, chance.each(amount, images))
        turn = self._hue * (2 * chance.uniform() - 1)
        return (hue(images, chance.each(turn, images)) if self._hue else images), labels


def needs_colours(name: str, shape: tuple[int, int, int]) -> None:
    if shape[0] not in (1, 3):
        raise ValueError(f"loader.augment: {name} needs images of 1 or 3 channels, and these have {shape[0]}; leave it out")


def grey(images: torch.Tensor) -> torch.Tensor:
    """(b, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def brightness(images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    return (images * amount).clamp_(0, 1)


def contrast(images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    return _blend(grey(images).mean((1, 2, 3), keepdim=True), images, amount)


def saturation(images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    return _blend(grey(images), images, amount) if images.shape[1] == 3 else images


def sharpness(images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """Away from the mean of the pixel, weighing five, and its eight neighbours; those at the border have none, and stay."""
    if min(images.shape[2:]) < 3:
        return images
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = (around + 4 * images[:, :, 1:-1, 1:-1]) / 13
    return _blend(smooth, images, amount)


BLENDS = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "sharpness": sharpness}
"""Those whose amount is a factor: 1 leaves the image as it is."""


def hue(images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """Turned by so much of a whole turn, by way of HSV."""
    if images.shape[1] != 3:
        return images
    high, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    spread = high - low
    safe = torch.where(spread > 0, spread, 1)
    red, green, blue = images.split(1, 1)
    sixth = torch.where(high == red, (green - blue) / safe, torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe))
    turned = sixth + 6 * amount
    channels = [high - spread * _ramp(turned + offset) for offset in (5, 3, 1)]
    return torch.cat(channels, 1)


def _ramp(sixth: torch.Tensor) -> torch.Tensor:
    place = sixth.remainder(6)
    return torch.minimum(place, 4 - place).clamp_(0, 1)


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Each channel stretched to 0..1; one of a single value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (images - low) / torch.where(spread > 0, spread, 1), images)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Each channel by its histogram of 256 levels, as ImageOps.equalize has it."""
    count, channels, height, width = images.shape
    level = _levels(images).long().reshape(count * channels, height * width)
    histogram = torch.zeros(count * channels, 256, dtype=torch.int64, device=images.device).scatter_add_(1, level, torch.ones_like(level))
    last = histogram.gather(1, level.amax(1, keepdim=True))
    step = (height * width - last) // 255
    before = histogram.cumsum(1) - histogram
    table = ((before + step // 2) // step.clamp_min(1)).clamp_(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return (table.gather(1, level).to(images.dtype) / 255).view(images.shape)


def posterize(images: torch.Tensor, bits: int) -> torch.Tensor:
    """So many bits of eight for each channel."""
    width = 2 ** (8 - bits)
    return _levels(images).div(width).floor_().mul_(width).div_(255)


def solarize(images: torch.Tensor, threshold: float) -> torch.Tensor:
    """Inverted from that level on, 0..256."""
    return torch.where(_levels(images) >= threshold, 1 - images, images)


def _levels(images: torch.Tensor) -> torch.Tensor:
    """0..255: what was read as bytes is those again, whatever was rounded on the way."""
    return (images * 255).round_().clamp_(0, 255)


def _blend(other: torch.Tensor, images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    return (other + (images - other) * amount).clamp_(0, 1)
