"""A picture brought to the size that a model takes: one way for training, for evaluations and for whoever predicts with an export."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")
"""Not every decoder that Pillow has: PostScript, whatever its name ends in, would be run by another program."""

Part = tuple[float, float, float, float]
"""Left, top, right, bottom of what is shown, in pixels of the whole."""


def middle(width: int, height: int, share: float) -> Part:
    """The middle square; `share`: of its side, what is shown."""
    side = min(width, height) * share
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def cut(image: Image, part: Part, size: tuple[int, int], faster: Callable[[tuple[int, int]], Image | None] | None = None) -> Image:
    """`part` of it in RGB, `size` pixels wide and high. A JPEG is decoded no larger than is needed; `faster`: by whom else, told how wide
    and how high the whole must be at least, or None where he cannot. Raises what Pillow does."""
    from PIL import Image

    width, height = image.size
    shrunk = max(1.0, min((part[2] - part[0]) / size[0], (part[3] - part[1]) / size[1]))
    wanted = int(width / shrunk), int(height / shrunk)
    picture = faster(wanted) if faster is not None else None
    if picture is None:
        image.draft("RGB", wanted)
        picture = rgb(image)
    across, down = picture.width / width, picture.height / height
    box = (part[0] * across, part[1] * down, part[2] * across, part[3] * down)
    return picture.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)


def upper_left(picture: Image, size: int, fill: tuple[int, ...]) -> NDArray[np.uint8]:
    """(size, size, 3): an RGB picture whose longer side is `size`, and `fill` beside or below it."""
    from PIL import Image

    factor = size / max(picture.size)
    small = picture.resize([max(1, round(factor * side)) for side in picture.size], Image.Resampling.BILINEAR)
    square = np.full((size, size, 3), fill, np.uint8)
    square[: small.height, : small.width] = np.asarray(small)
    return square


def rgb(image: Image) -> Image:
    """As it is shown; itself, decoded, where that is what it is. Raises ValueError where nobody knows what is white: Pillow takes whatever
    is above 255 for it."""
    if image.mode == "RGB":
        image.load()
        return image
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, not of 8 or 16 bits")
    is_clear = image.mode == "P" and "transparency" in image.info  # Pillow warns of those, of each one
    return (image.convert("RGBA") if is_clear else image).convert("RGB")
