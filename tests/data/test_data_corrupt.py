"""Samples that cannot be read: the run stops at the first, or leaves out as many as it was told to, the same ones each time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.cifar10 import CIFAR10, FILES
from data.resident import Resident
from data.store.corrupt import Corrupt
from data.store.parquet import read_images

BAD = (4, 5, 21)
"""Rows of the training file: bytes that are no image, an image that is cut off, a label that is no class."""


@pytest.fixture
def damaged(root: Path, images: Callable[..., np.ndarray], write: Callable[..., Path]) -> Path:
    pixels: list[Any] = list(images(70, 0))
    labels = [(3 * i) % 10 for i in range(70)]
    pixels[4] = b"no image"
    pixels[5] = b"\x89PNG\r\n\x1a\n"
    labels[21] = 10
    write(root / FILES["train"], pixels, labels)
    return root


def cifar(root: Path, **options: Any) -> CIFAR10:
    return CIFAR10(root=str(root), **{"validation": 10, **options})


def order(data: CIFAR10) -> list[int]:
    """Checksums of the first epoch's images."""
    return [hash(images.numpy().tobytes()) for images, _ in opened(data, 8).steps(0)]


def opened(data: CIFAR10, batch_size: int) -> Resident:
    loader = Resident(data, batch_size=batch_size, accumulate=1, seed=0)
    loader.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    return loader


def test_by_default_the_first_one_stops_the_run_and_nothing_stays(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image in row 4 that cannot be decoded .*; or leave such samples out: data\.max_corrupt=10"):
        cifar(damaged).prepare()
    assert not list((tmp_path / "cache").glob("*/manifest.json"))


def test_one_more_than_allowed_stops_it_too(damaged: Path) -> None:
    with pytest.raises(ValueError, match=r"has the label 10 in row 21.*; 2 samples before it were left out, which is data\.max_corrupt"):
        cifar(damaged, max_corrupt=2).prepare()


def test_they_are_left_out_named_and_counted_and_the_same_from_the_copy(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = cifar(damaged, max_corrupt=3)
    pinned = first.prepare()
    assert "WARNING: 3 samples cannot be read and are left out (data.max_corrupt=3): data.root=" in capsys.readouterr().err
    for name in FILES.values():
        (damaged / name).unlink()  # a worker, or a later attempt, has the decoded copy alone
    again = CIFAR10(**{"validation": 10, "max_corrupt": 3, **pinned})
    assert order(again) == order(first)
    assert [len(again.corrupt.found), len(first.corrupt.found)] == [3, 3]
    assert [f"in row {row}" in found for row, found in zip(BAD, again.corrupt.found, strict=True)] == [True] * 3
    assert opened(again, 57).samples == 57


def test_a_copy_with_more_left_out_than_allowed_is_refused(damaged: Path) -> None:
    cifar(damaged, max_corrupt=3).prepare()
    for limit, what in ((0, "row 4 that cannot be decoded"), (2, "row 21")):
        with pytest.raises(ValueError, match=what):
            cifar(damaged, max_corrupt=limit).prepare()


def test_what_is_left_out_is_in_the_copys_checksum(damaged: Path, tmp_path: Path) -> None:
    cifar(damaged, max_corrupt=3).prepare()
    manifest = next((tmp_path / "cache").glob("*/manifest.json"))
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "corrupt": []}))
    again = cifar(damaged, max_corrupt=3)
    again.prepare()  # built anew
    assert len(again.corrupt.found) == 3


def test_chunks_of_nothing_but_corrupt_samples(tmp_path: Path, write: Callable[..., Path], images: Callable[..., np.ndarray]) -> None:
    write(tmp_path / "f", [*[b"no"] * 1000, images(1, 0)[0]], [0] * 1001)
    chunks = list(read_images(tmp_path, "f", image="img", label="label", classes=10, size=(32, 32), corrupt=Corrupt(1000)))
    assert [len(labels) for _, labels in chunks] == [1]
