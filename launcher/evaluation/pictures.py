"""Samples as PNGs for a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional as F

from launcher.train.tasks.drawn import visible

SIDE = 160
"""Pixels of the longer side, at most: a page holds dozens."""
LEAST = 64
"""Smaller ones are shown larger, pixel by pixel."""


def are_images(samples: object) -> bool:
    return isinstance(samples, torch.Tensor) and samples.ndim == 4 and samples.shape[1] in (1, 3) and samples.is_floating_point()


def kept(images: torch.Tensor) -> torch.Tensor:
    """(k, C, H, W) to uint8 of the same, no larger than a page needs: as the model sees them, each stretched to what is visible."""
    return smaller(visible(images), SIDE)


def smaller(seen: torch.Tensor, side: int) -> torch.Tensor:
    """Of (k, C, H, W) in 0..1."""
    if max(seen.shape[-2:]) > side:
        seen = F.interpolate(seen, scale_factor=side / max(seen.shape[-2:]), mode="bilinear", antialias=True).clamp(0, 1)
    return (seen * 255).round().byte()


def png(image: torch.Tensor) -> bytes:
    """Of (C, H, W) uint8."""
    from PIL import Image

    pixels = image.permute(1, 2, 0).expand(-1, -1, 3).contiguous().numpy()
    picture = Image.fromarray(pixels)
    times = -(-LEAST // max(picture.size))
    if times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    into = io.BytesIO()
    picture.save(into, "png")
    return into.getvalue()


def sheet(images: Mapping[str, Sequence[bytes]]) -> dict[str, bytes]:
    """One PNG for each name, with its pictures beside each other."""
    from PIL import Image

    made: dict[str, bytes] = {}
    for name, each in images.items():
        opened = [Image.open(io.BytesIO(data)) for data in each]
        width, height = max(one.width for one in opened) + 4, max(one.height for one in opened) + 4
        columns = even(len(opened))
        whole = Image.new("RGB", (columns * width, -(-len(opened) // columns) * height), "white")
        for place, one in enumerate(opened):
            whole.paste(one, (place % columns * width + 2, place // columns * height + 2))
        into = io.BytesIO()
        whole.save(into, "png")
        made[name] = into.getvalue()
    return made


def even(count: int) -> int:
    """Columns, at most eight, of which the last row has as many as the others, or nearly so."""
    rows = -(-count // 8)
    return -(-count // rows)
