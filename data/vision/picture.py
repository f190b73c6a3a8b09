"""One picture as a model is given it: a part of it, of one size, perhaps mirrored, standardised."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from data.options import whole
from data.store.files import first_line, lost
from data.vision import decoders, fitted
from data.vision.fitted import FORMATS

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's."""
MIDDLE = 7 / 8
"""Of the middle square, the share of a side that evaluations are shown."""


class Picture:
    """What draws, draws from `random`, which a loader has planted for the sample."""

    def __init__(
        self,
        size: int,
        crop: float,
        flip: bool,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
        decoder: str = decoders.PILLOW,
    ) -> None:
        """`size`: pixels of a side. `crop`: the least share of the area that is shown (Szegedy et al., 2014,
        https://arxiv.org/abs/1409.4842); 1: 7/8 of the middle square. `flip`: left to right, every other time. `mean`, `std`: of each
        channel, in 0..1. `decoder`: of JPEGs, as data/vision/decoders.py has it. Raises ValueError naming the option."""
        whole("data.size", size, 1)
        if not 0 < crop <= 1:
            raise ValueError(f"data.crop={crop}: not possible; type a share of the area above 0, 1 for none")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("data.mean and data.std: not possible; type three numbers each, those of std above 0")
        self.size, self._crop, self._flip = size, crop, flip
        self.decoder = decoders.chosen(decoder)
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)

    @property
    def preprocessing(self) -> dict[str, object]:
        """How evaluations are given a picture, as an export says it (docs/after-training.md)."""
        size, mean, std = [self.size, self.size], self._mean.tolist(), self._std.tolist()
        return {"kind": "image", "mode": "RGB", "size": size, "fit": "middle", "share": MIDDLE, "mean": mean, "std": std}

    def plain(self) -> Picture:
        """As evaluations have it."""
        return Picture(self.size, 1.0, False, tuple(self._mean.tolist()), tuple(self._std.tolist()), self.decoder)

    def examine(self, file: Path | IO[bytes]) -> None:
        """Raises ValueError, in a few words, where it is no picture; OSError where the machine fails."""
        self._shown(file)

    def of(self, file: Path | IO[bytes]) -> torch.Tensor:
        """(3, size, size) float32. Raises as `examine`."""
        import torch

        pixels = np.asarray(self._shown(file), np.float32) / 255
        return torch.from_numpy((pixels - self._mean) / self._std).permute(2, 0, 1).contiguous()

    def _shown(self, file: Path | IO[bytes]) -> Image:
        """(size, size), RGB. A JPEG is decoded no larger than is needed."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(file, formats=FORMATS) as image:
                part = self._part(*image.size)
                picture = fitted.cut(image, part, (self.size, self.size), lambda wanted: self._faster(image, file, wanted))
        except UnidentifiedImageError as error:  # which says its path once more
            raise ValueError("is no picture that can be read (of no kind that is read: JPEG, PNG and such)") from error
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            if lost(error):
                raise
            why = getattr(error, "strerror", None) or first_line(error)
            raise ValueError(f"is no picture that can be read ({why})") from error
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self._flip and random.random() < 0.5 else picture

    def _faster(self, image: Image, file: Path | IO[bytes], wanted: tuple[int, int]) -> Image | None:
        """By another decoder than Pillow. None where it is none of its pictures: then Pillow says what is wrong with it."""
        from PIL import Image

        if self.decoder == decoders.PILLOW or image.format != "JPEG" or image.mode not in ("RGB", "L"):
            return None
        raw = file.read_bytes() if isinstance(file, Path) else _rewound(file)
        try:
            return Image.fromarray(decoders.opened(self.decoder)(raw, *wanted))
        except (ValueError, RuntimeError, OSError):
            return None

    def _part(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What is shown: between 3:4 and 4:3, or the whole middle square where ten draws give none that fits."""
        for _ in range(10 if self._crop < 1 else 0):
            area, ratio = width * height * random.uniform(self._crop, 1), math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if wide <= width and high <= height:
                left, top = random.uniform(0, width - wide), random.uniform(0, height - high)
                return left, top, left + wide, top + high
        return fitted.middle(width, height, 1.0 if self._crop < 1 else MIDDLE)


def _rewound(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
