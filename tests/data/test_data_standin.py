"""The drawn stand-in: the same pixels everywhere, to be learnt, and not at a glance."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from data.vision import standin

Parts = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return {name: next(chunks) for name, chunks in standin.draw().items()}


def test_the_pixels_are_those_of_every_release(parts: Parts) -> None:
    """Another hash needs another VERSION, so that no run is resumed on other data."""
    digests = {name: hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:16] for name, (images, labels) in parts.items()}
    assert (standin.VERSION, digests) == (1, {"train": "0ca4e1a036e6f61c", "test": "02ebc8e052eb69fd"})


def test_every_class_comes_equally_often(parts: Parts) -> None:
    for name, samples in (("train", 10_000), ("test", 2_000)):
        images, labels = parts[name]
        assert (images.shape, images.dtype) == ((samples, 32, 32, 3), np.uint8)
        assert np.bincount(labels).tolist() == [samples // 10] * 10
    assert len(standin.CLASSES) == len(standin.SHAPES) == 10


def test_no_image_is_in_both_parts_or_twice(parts: Parts) -> None:
    images = [image.tobytes() for name in parts for image in parts[name][0]]
    assert len(set(images)) == len(images)


def test_the_simplest_classifier_learns_something_and_not_everything(parts: Parts) -> None:
    """Nearest class mean, in pixels: chance is 10 %, and 22 % is what the colours alone give away."""
    (images, labels), (others, wanted) = parts["train"], parts["test"]
    means = np.stack([images[labels == label].reshape(-1, 3072).mean(axis=0) for label in range(10)])
    distance = (means**2).sum(axis=1) - 2 * others.reshape(-1, 3072).astype(np.float64) @ means.T
    accuracy = (distance.argmin(axis=1) == wanted).mean()
    assert 0.17 < accuracy < 0.5


def test_shapes_tell_more_than_colours(parts: Parts) -> None:
    """Whether neighbours differ across, down and along the diagonals: a handful of numbers that find the gratings."""
    rows, columns, diagonals = (standin.CLASSES.index(name) for name in ("rows", "columns", "diagonals"))
    images, labels = parts["test"]
    grey = images.astype(np.int32).sum(axis=3)
    across = abs(np.diff(grey, axis=2)).mean(axis=(1, 2))
    down = abs(np.diff(grey, axis=1)).mean(axis=(1, 2))
    along = abs(grey[:, 1:, :-1] - grey[:, :-1, 1:]).mean(axis=(1, 2))
    for label, less, more in ((rows, across, down), (columns, down, across), (diagonals, along, across)):
        right = (less < more)[labels == label].mean()
        assert right > 0.8
