"""A picture as a program takes it, by the code that evaluations took; and what a person should know of it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from data.vision import fitted
from launcher.predict.room import Room

MOST_PIXELS = 89_478_485
"""Of a picture: Pillow's own mark, above which a file of kilobytes may be meant to take gigabytes."""
MOST_BYTES = 256 << 20
_ORIENTATION = 0x0112
"""Where EXIF says how a camera was held."""
SMALLEST = 4
"""Pixels of a side, below which there is nothing to see."""


class Refused(ValueError):
    """An input of which nothing can be said, in a few words."""

    name = ""
    """Of the input, where there is no item for it."""


class Prepared(NamedTuple):
    pixels: torch.Tensor
    """(H, W, C) uint8, of the program's size."""
    size: tuple[int, int]
    """(width, height) that it had."""
    guards: Sequence[str]


class Images:
    """By the words of preprocessing.json."""

    def __init__(self, told: Mapping[str, Any], shape: Sequence[Any], is_channels_last: bool = False) -> None:
        """`shape`: of what the program takes, ("batch", C, H, W); `is_channels_last`: it may lie in memory as (N, H, W, C). Raises
        ValueError where they have no sense, or do not agree."""
        from PIL import Image

        self._pillow, self._room, self._is_channels_last = Image, Room(), is_channels_last
        self._mode, self._fit = str(told["mode"]), str(told["fit"])
        self._height, self._width = (int(side) for side in told["size"])
        if self._fit not in ("stretch", "middle", "upper_left") or self._mode not in ("RGB", "L"):
            raise ValueError(f"fit {self._fit:.40} of mode {self._mode:.40}")
        self._mean, self._std = (torch.tensor(told[key], dtype=torch.float32).view(1, 1, 1, -1) for key in ("mean", "std"))
        channels = len(self._mode)
        if list(shape[1:]) != [channels, self._height, self._width]:
            raise ValueError(f"pictures of {channels}x{self._height}x{self._width} for a program that takes {list(shape[1:])}")
        if not self._mean.numel() == self._std.numel() == channels or not (self._std > 0).all() or not self._mean.isfinite().all():
            raise ValueError(f"mean or std of {channels} channels")
        self._share = float(told.get("share", 1.0))
        if not 0 < self._share <= 1:
            raise ValueError(f"share {self._share}")
        self._fill = tuple(int(each) for each in told.get("fill", (0, 0, 0)))

    def standardised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Of (N, H, W, C) uint8 what the program takes: (N, C, H, W) float32, by the arithmetic of training to the last bit. The next call
        writes over it."""
        most = torch.full_like(self._mean, 255)  # by a number a GPU would multiply with its inverse
        most, mean, std = (each.to(pixels.device) for each in (most, self._mean, self._std))
        taken = self._room.of("pixels", pixels.shape, pixels.device).copy_(pixels).div_(most).sub_(mean).div_(std)
        inputs = taken.permute(0, 3, 1, 2)
        return inputs if self._is_channels_last else self._room.of("inputs", inputs.shape, pixels.device).copy_(inputs)

    def __call__(self, raw: bytes) -> Prepared:
        """Raises Refused."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with self._pillow.open(io.BytesIO(raw), formats=fitted.FORMATS) as image:
                    if image.width * image.height > MOST_PIXELS:
                        raise Refused(f"it has {image.width:,}×{image.height:,} pixels, and {MOST_PIXELS:,} are the most")
                    guards, size = _noticed(image, self._mode), image.size
                    shown = self._shown(image)
            except Refused:
                raise
            except self._pillow.DecompressionBombError as error:
                raise Refused(f"it has more than {2 * MOST_PIXELS:,} pixels, and {MOST_PIXELS:,} are the most") from error
            except self._pillow.UnidentifiedImageError as error:  # which says where its bytes lie
                raise Refused("it is no picture that can be read (of no kind that is read: JPEG, PNG and such)") from error
            except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
                raise Refused(f"it is no picture that can be read ({_first_line(error)})") from error
        pixels = numpy.array(shown, numpy.uint8)  # a copy: Pillow's own cannot be written to
        return Prepared(torch.from_numpy(pixels.reshape(self._height, self._width, -1)), size, guards)

    def _shown(self, image: Any) -> Any:
        size = (self._width, self._height)
        if self._fit == "middle":
            return fitted.cut(image, fitted.middle(image.width, image.height, self._share), size)
        picture = fitted.rgb(image)
        if self._fit == "upper_left":
            return fitted.upper_left(picture, self._width, self._fill)
        picture = picture if picture.mode == self._mode else picture.convert(self._mode)
        return picture if picture.size == size else picture.resize(size, self._pillow.Resampling.BILINEAR)

    def read(self, path: Path) -> bytes:
        """Raises Refused: of a pipe or a device nothing is read."""
        from launcher.trust import reading

        try:
            return reading.whole(path, MOST_BYTES)
        except OSError as error:
            raise Refused(f"it cannot be read ({error.strerror or error})") from error


def _noticed(image: Any, mode: str) -> list[str]:
    found: list[str] = []
    if min(image.size) < SMALLEST:
        found.append(f"size: {image.width}×{image.height} pixels are nearly nothing")
    if image.format != "TIFF" and "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1:  # a TIFF's is obeyed by Pillow
        found.append("orientation: shown as it is stored, as in training, and not as the camera was held")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        found.append(f"frames: the first of {frames}")
    if image.mode.startswith(("I", "F")):
        found.append("depth: more than 8 bits a channel, brought to 8")
    elif image.mode in ("RGBA", "LA", "PA") or (image.mode == "P" and "transparency" in image.info):
        found.append("channels: what is transparent is shown as it is stored")
    elif image.mode not in ("RGB", "L", "P", "1"):
        found.append(f"channels: {image.mode}, converted")
    elif mode == "L" and image.mode == "RGB":
        found.append("channels: colours, brought to grey")
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
