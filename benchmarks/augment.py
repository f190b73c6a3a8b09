"""Images a second of RandAugment (n=2) and of mixtures on one thread of a CPU, beside Pillow that does RandAugment image by image.

    python benchmarks/augment.py                          # 1 minute

Contenders take turns. Pillow is given images that are decoded already and does nothing beside the two operations: each is drawn from the
same fourteen, at the same magnitude, and what comes out stays bytes.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from benchmarks import measure
from data.augment.chance import Augmentation, Chance
from data.augment.mix import Mix
from data.augment.randaugment import RandAugment

SIZES = ((256, 32), (64, 224))
"""Images of a batch, pixels of a side."""
Change = Callable[[Image.Image], Image.Image]


def pillows(side: int) -> list[Change]:
    """Magnitude 9 of 10, as data/augment/randaugment.py has it."""
    far = 0.9 * 150 / 331 * side

    def moved(*data: float) -> Change:
        return lambda image: image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)

    def enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Change:
        return lambda image: kind(image).enhance(1 + 0.81 * random.choice((-1, 1)))

    return [
        lambda image: image,
        ImageOps.autocontrast,
        ImageOps.equalize,
        lambda image: ImageOps.solarize(image, 26),
        lambda image: ImageOps.posterize(image, 4),
        *map(enhanced, (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness, ImageEnhance.Sharpness)),
        lambda image: image.rotate(27, Image.Resampling.BILINEAR),
        *(moved(1, 0.27, 0, 0, 1, 0), moved(1, 0, 0, 0.27, 1, 0), moved(1, 0, far, 0, 1, 0), moved(1, 0, 0, 0, 1, far)),
    ]


def batched(step: Augmentation, images: torch.Tensor) -> Callable[[int], None]:
    labels, fill = torch.zeros(len(images), dtype=torch.int64), torch.full((3, 1, 1), 0.5)

    def once(number: int) -> None:
        step(images, labels, Chance(np.arange(len(images)), (0, number, 0), images.device, fill, 1000))

    return once


def one_by_one(images: list[Image.Image]) -> Callable[[int], None]:
    changes = pillows(images[0].width)

    def once(number: int) -> None:
        for image in images:
            random.choice(changes)(random.choice(changes)(image))

    return once


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Images a second of augmentations, beside Pillow", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30, help="of one batch of each contender")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    before = measure.load()
    rows = [("batch", "contender", "images/s (median)", "over Pillow [95 %]")]
    for count, side in SIZES:
        pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        contenders = {
            "RandAugment": batched(RandAugment(2, 9), images),
            "Mix, both kinds": batched(Mix(0.2, 1.0), images),
            "Pillow": one_by_one([Image.fromarray(each) for each in pixels]),
        }
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(options.rounds + 1):
            for name in measure.rotated(list(contenders), number):
                begin = time.perf_counter()
                contenders[name](number)
                found[name].append(time.perf_counter() - begin)
        for name, (_, *taken) in found.items():
            above = measure.ratios(found["Pillow"][1:], taken).as_ratio() if name == "RandAugment" else ""
            rows.append((f"{count} of {side}x{side}", name, f"{count / statistics.median(taken):,.0f}", above))
    print(
        f"n={options.rounds} batches each, one thread; {measure.one_line(measure.machine())}; load before {before}, after {measure.load()}"
    )
    print(measure.one_line(measure.versions("torch", "pillow")), end="\n\n")
    print(measure.table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
