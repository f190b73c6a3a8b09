"""Ten classes of 32x32 images drawn by code: what CIFAR10 trains on where CIFAR-10 cannot be had.

Shapes and gratings, each of its class's colour with much jitter, at a random place and size, on a random background under
noise: a small network learns them in a few epochs, and not to 100 %, because some are drawn almost in the colour of their
background. Whole-number arithmetic throughout, so that the pixels are the same on every processor and under every NumPy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from data.sampling.order import STANDIN, shuffled, words

CLASSES = ("disc", "square", "triangle", "ring", "cross", "diamond", "rows", "columns", "diagonals", "checkers")
SAMPLES = {"train": 10_000, "test": 2_000}
VERSION = 1
FINGERPRINT = hashlib.sha256(f"launcher stand-in, version {VERSION}".encode()).hexdigest()

SIZE = 32
Ints = NDArray[np.int32]

# Typical colours (red, green, blue) of the classes, half of what an image gets; the other half is random.
PALETTE = np.array(
    [
        (220, 60, 60), (60, 200, 80), (70, 90, 220), (220, 200, 60), (200, 70, 200),
        (60, 200, 210), (240, 140, 50), (130, 70, 180), (150, 220, 140), (120, 120, 120),
    ],
    np.int32,
)  # fmt: skip


def draw() -> dict[str, Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]]:
    """Both parts, each as one chunk: images uint8 (n, 32, 32, 3) and labels (n,), every class equally often."""
    return {part: _draw_part(number, samples) for number, (part, samples) in enumerate(SAMPLES.items())}


def _draw_part(part: int, samples: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    labels = shuffled(samples, STANDIN, VERSION, part) % len(CLASSES)
    images = np.empty((samples, SIZE, SIZE, 3), np.uint8)
    for label, name in enumerate(CLASSES):
        where = np.flatnonzero(labels == label)
        images[where] = _draw_class(SHAPES[name], PALETTE[label], len(where), part, label)
    yield images, labels


def _draw_class(shape: Shape, colour: Ints, n: int, part: int, label: int) -> NDArray[np.uint8]:
    parameters = words(n * 2, STANDIN, VERSION, part, 1, label).view(np.uint16).reshape(n, 8).astype(np.int32)
    noise = words(n * SIZE * SIZE * 3 // 4, STANDIN, VERSION, part, 2, label).view(np.uint8)

    y, x = np.arange(SIZE, dtype=np.int32)[:, None], np.arange(SIZE, dtype=np.int32)[None, :]
    top, left, size = (4 + _pick(parameters[:, column], 24 - 16 * (column == 2)) for column in range(3))
    inside = shape(y - top[:, None, None], x - left[:, None, None], size[:, None, None])

    jitter = parameters[:, 3:6] >> 8
    ink = (colour + jitter) // 2
    paper = 64 + np.stack([parameters[:, 6] & 127, parameters[:, 6] >> 9, parameters[:, 7] & 127], axis=1)
    image = np.where(inside[..., None], ink[:, None, None, :], paper[:, None, None, :])
    # The sum of two bytes is a triangle around 255: noise with a deviation of 104 / 4 = 26 levels.
    pair = noise.reshape(2, n, SIZE, SIZE, 3).astype(np.int32)
    return np.clip(image + (pair[0] + pair[1] - 255) // 4, 0, 255).astype(np.uint8)


def _pick(word: Ints, choices: int) -> Ints:
    """16 random bits -> one of 0..choices-1."""
    return word * choices >> 16


Shape = Callable[[Ints, Ints, Ints], NDArray[np.bool_]]
"""(rows below the centre, columns right of it, size 4..11), broadcast to (n, 32, 32) -> inside or not."""

SHAPES: Mapping[str, Shape] = {
    "disc": lambda y, x, s: y * y + x * x <= s * s,
    "square": lambda y, x, s: np.maximum(abs(y), abs(x)) < s,
    "triangle": lambda y, x, s: (abs(y) <= s) & (2 * abs(x) <= y + s),
    "ring": lambda y, x, s: (y * y + x * x <= s * s) & (4 * (y * y + x * x) >= s * s),
    "cross": lambda y, x, s: (np.minimum(abs(y), abs(x)) <= s // 4) & (np.maximum(abs(y), abs(x)) <= s),
    "diamond": lambda y, x, s: abs(y) + abs(x) <= s,
    "rows": lambda y, x, s: (y // (s // 3 + 1) + 0 * x) % 2 == 0,
    "columns": lambda y, x, s: (x // (s // 3 + 1) + 0 * y) % 2 == 0,
    "diagonals": lambda y, x, s: (y + x) // (s // 3 + 1) % 2 == 0,
    "checkers": lambda y, x, s: (y // (s // 3 + 1) + x // (s // 3 + 1)) % 2 == 0,
}
