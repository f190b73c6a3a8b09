"""RandAugment (Cubuk et al., 2019, https://arxiv.org/abs/1909.13719): for each image some of fourteen operations, all of one magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment import colour, shape
from data.augment.chance import Chance
from data.options import one_of, whole

MOST = 10
"""The largest magnitude: rotation by 30 degrees, shear by 0.3, translation by 0.45 of a side, enhancement by 1 - 0.9 or 1 + 0.9, four bits
of a channel, all inverted: as torchvision has them, whose largest magnitude is called 30."""
DEGREES, SHEAR, TRANSLATION, ENHANCEMENT, BITS = 30.0, 0.3, 150 / 331, 0.9, 4
GEOMETRIC = ("rotate", "shear-x", "shear-y", "translate-x", "translate-y")
ENHANCED = {"colour": "saturation", "contrast": "contrast", "brightness": "brightness", "sharpness": "sharpness"}
"""By what they are called in colour.py."""
OPERATIONS = ("identity", "auto-contrast", "equalize", "solarize", "posterize", *ENHANCED, *GEOMETRIC)


class RandAugment:
    """`n` times over, each image is given to one of the operations. Images that drew the same go through it together, those that are
    turned, sheared and moved in one call; which drew what is known on the host, so no device is waited for."""

    pixels = True

    def __init__(self, n: int = 2, magnitude: float = 9, operations: Sequence[str] = OPERATIONS) -> None:
        """`magnitude`: 0 to 10. `operations`: which there are to draw from. Raises ValueError naming the option."""
        whole("loader.augment: n", n, 1)
        if isinstance(magnitude, bool) or not 0 <= magnitude <= MOST:
            raise ValueError(f"loader.augment: magnitude={magnitude} is not possible; type a number from 0 to {MOST}")
        for name in operations:
            one_of("loader.augment: operations", name, OPERATIONS)
        if not operations:
            raise ValueError(f"loader.augment: operations=[] has none to draw from; type some of {', '.join(OPERATIONS)}")
        self._n, self._strength, self._operations = n, magnitude / MOST, tuple(operations)

    def check(self, of: tuple[int, int, int]) -> None:
        """Raises ValueError for images that are neither grey nor of three colours."""
        colour.needs_colours(type(self).__name__, of)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        for _ in range(self._n):
            images = self._once(images, chance)
        return images, labels

    def _once(self, images: torch.Tensor, chance: Chance) -> torch.Tensor:
        drawn, signs = chance.below(len(self._operations)), chance.sign()
        done = images.clone()
        names = np.array(self._operations)[drawn]
        for group in (*self._operations, GEOMETRIC):
            which = np.flatnonzero(np.isin(names, group))
            if not len(which) or group == "identity" or group in GEOMETRIC:
                continue
            places = chance.on(which)
            some = images.index_select(0, places)
            if isinstance(group, str):
                changed = self._changed(group, some, signs[which], chance)
            else:
                changed = shape.warped(some, self._maps(names[which], signs[which], images.shape), chance)
            done.index_copy_(0, places, changed)
        return done

    def _changed(self, name: str, images: torch.Tensor, signs: NDArray[np.float64], chance: Chance) -> torch.Tensor:
        if name in ENHANCED:
            return colour.BLENDS[ENHANCED[name]](images, chance.each(1 + ENHANCEMENT * self._strength * signs, images))
        plain: dict[str, Callable[[], torch.Tensor]] = {
            "auto-contrast": lambda: colour.autocontrast(images),
            "equalize": lambda: colour.equalize(images),
            "solarize": lambda: colour.solarize(images, 256 * (1 - self._strength)),
            "posterize": lambda: colour.posterize(images, 8 - round(BITS * self._strength)),
        }
        return plain[name]()

    def _maps(self, names: NDArray[np.str_], signs: NDArray[np.float64], of: torch.Size) -> NDArray[np.float64]:
        """(b, 2, 3), from where a pixel comes: Pillow's rotate about the middle, shear from the upper left corner."""
        height, width = of[2:]
        maps = np.tile(np.eye(2, 3), (len(names), 1, 1))
        for place, (name, sign) in enumerate(zip(names, signs, strict=True)):
            amount = sign * self._strength
            if name == "rotate":
                cos, sin = math.cos(math.radians(DEGREES * amount)), math.sin(math.radians(DEGREES * amount))
                x, y = width / 2, height / 2
                maps[place] = (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)
            elif name.startswith("shear"):
                maps[place, (0, 1), (1, 0)] = (SHEAR * amount, 0) if name == "shear-x" else (0, SHEAR * amount)
            else:
                maps[place, :, 2] = (TRANSLATION * amount * width, 0) if name == "translate-x" else (0, TRANSLATION * amount * height)
        return maps
