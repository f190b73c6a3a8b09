"""Pictures with boxes: what a reader of annotations returns, what is wrong with a box, and a picture brought to the size of all.

Coordinates are edges in pixels, from the upper left corner, as they stand in the file. (The devkit of Pascal VOC counts pixels from 1: half
a pixel's difference.)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.store.files import first_line, lost
from data.vision.fitted import FORMATS, rgb, upper_left

if TYPE_CHECKING:
    from PIL.Image import Image

FILL = (124, 116, 104)
"""Of the border: the mean of ImageNet's pictures, which is about zero once it is standardised."""
_ORIENTATION = 0x0112
"""Where EXIF says how a camera was held."""


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float
    name: str
    """Of its class."""
    is_ignored: bool = False
    """Neither sought nor wrong where it is found: a crowd, or what is called difficult."""


class Sample(NamedTuple):
    picture: Path
    where: str
    """Its annotation, as an error names it."""
    size: tuple[int, int] | None
    """(width, height) as they are written there."""
    boxes: tuple[Box, ...]
    """None of them: a picture without anything in it, which is a sample like others."""


class Row(NamedTuple):
    """A sample as it is kept. Of `most` boxes; behind those there are, labels are -1."""

    pixels: NDArray[np.uint8]
    """(size, size, 3)"""
    boxes: NDArray[np.float32]
    """(most, 4): left, top, right, bottom in the pixels of `pixels`."""
    labels: NDArray[np.int64]
    ignored: NDArray[np.uint8]
    clipped: int
    """Boxes that went beyond the picture's edge."""


def row(sample: Sample, size: int, most: int, labels: Mapping[str, int], clips: bool) -> Row:
    """Read the picture, shrink or enlarge it into the upper left of a square of `size`, and its boxes with it.

    `clips`: whether a box beyond the edge is cut there. Raises ValueError that names the file and what is wrong with it.
    """
    pixels, (width, height) = _square(sample, size)
    factor = size / max(width, height)
    made = Row(pixels, np.zeros((most, 4), np.float32), np.full(most, -1, np.int64), np.zeros(most, np.uint8), 0)
    clipped = 0
    for place, box in enumerate(sample.boxes):
        inside = _inside(box, width, height)
        if inside != box[:4]:
            if not clips:
                raise ValueError(
                    f"{sample.where}: {_told(box)} goes beyond the picture, which is {width}x{height}; mend it, or cut such boxes at the "
                    "edge: data.outside=clip"
                )
            clipped += 1
        left, top, right, bottom = inside
        if right <= left or bottom <= top:
            raise ValueError(f"{sample.where}: {_told(box)} has no area in the picture, which is {width}x{height}; mend it")
        made.boxes[place] = [factor * edge for edge in inside]
        made.labels[place], made.ignored[place] = labels[box.name], box.is_ignored
    return made._replace(clipped=clipped)


def box_of(edges: tuple[float, ...], name: str, is_ignored: bool, where: str) -> Box:
    """Raises ValueError where the edges are no numbers."""
    left, top, right, bottom = edges
    box = Box(left, top, right, bottom, name, is_ignored)
    if not all(map(math.isfinite, edges)):
        raise ValueError(f"{where}: {_told(box)} has an edge that is no number; mend it")
    return box


def _told(box: Box) -> str:
    edges = ", ".join(f"{edge:g}" for edge in box[:4])
    return f"the box {box.name!r:.40} [{edges}]"


def _inside(box: Box, width: int, height: int) -> tuple[float, ...]:
    return tuple(min(max(edge, 0), most) for edge, most in zip(box[:4], (width, height) * 2, strict=True))


def _square(sample: Sample, size: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """(size, size, 3), and (width, height) that the picture had. Raises ValueError."""
    from PIL import Image, ImageOps

    if sample.picture.exists() and not sample.picture.is_file():  # reading a pipe would never end
        raise ValueError(f"{sample.picture} is no file; replace it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # 43 KB may be two gigabytes of one colour
            warnings.filterwarnings("ignore", category=UserWarning)  # what a camera wrote wrongly beside the pixels
            with Image.open(sample.picture, formats=FORMATS) as image:
                if sample.size not in (None, image.size) and image.getexif().get(_ORIENTATION, 1) > 4:
                    image = ImageOps.exif_transpose(image)  # it was annotated as it is looked at
                if sample.size not in (None, image.size):
                    raise ValueError(
                        f"{sample.where} is of a picture of {_by(sample.size)}, and {sample.picture.name} has {_by(image.size)}; its boxes "
                        "would be at other places: mend the size there, or the picture"
                    )
                found = image.size
                square = upper_left(_rgb(image, sample), size, FILL)
    except FileNotFoundError as error:
        raise ValueError(f"{sample.where} is of {sample.picture.name}, and there is no {sample.picture}; put it there") from error
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if lost(error):
            raise
        raise ValueError(f"{sample.picture} cannot be decoded ({first_line(error)}); replace it") from error
    return square, found


def _rgb(image: Image, sample: Sample) -> Image:
    try:
        return rgb(image)
    except ValueError as error:
        raise ValueError(f"{sample.picture} cannot be decoded ({error}); replace it") from error


def _by(size: tuple[int, int] | None) -> str:
    return "x".join(map(str, size or ()))
