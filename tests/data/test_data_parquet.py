"""Bad input is one clear line: which file, what is wrong with it, what to type instead."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from data.store.corrupt import Corrupt
from data.store.parquet import read_images

NAME = "plain_text/train.parquet"
Write = Callable[..., Path]


def read(root: Path) -> tuple[np.ndarray, np.ndarray]:
    chunks = list(read_images(root, NAME, image="img", label="label", classes=10, size=(32, 32), corrupt=Corrupt(0)))
    return np.concatenate([chunk[0] for chunk in chunks]), np.concatenate([chunk[1] for chunk in chunks])


def refusal(root: Path) -> str:
    with pytest.raises(ValueError, match=rf"^data\.root={root}: {NAME} ") as refused:
        read(root)
    text = str(refused.value)
    assert "download it again or point data.root at a good copy" in text
    assert len(text.splitlines()) == 1
    return text


def test_pixels_and_labels_come_back_over_many_chunks(tmp_path: Path, write: Write, images: Callable[..., np.ndarray]) -> None:
    tile = images(25, 1)
    pixels = np.tile(tile, (84, 1, 1, 1))
    labels = [i % 10 for i in range(2100)]
    write(tmp_path / NAME, pixels, labels)
    chunks = [
        len(chunk[1]) for chunk in read_images(tmp_path, NAME, image="img", label="label", classes=10, size=(32, 32), corrupt=Corrupt(0))
    ]
    assert len(chunks) > 1
    assert max(chunks) <= 1000
    got, got_labels = read(tmp_path)
    assert (got == pixels).all()
    assert got_labels.tolist() == labels
    assert (got.dtype, got_labels.dtype) == (np.uint8, np.int64)


def test_a_grey_image_becomes_three_equal_channels(tmp_path: Path, write: Write) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32), 77, np.uint8)).save(file, "PNG")
    write(tmp_path / NAME, [file.getvalue()], [0])
    assert (read(tmp_path)[0] == 77).all()


def test_a_file_that_is_not_parquet(tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / NAME, [], [])
    path.write_text("<html>please log in</html>")
    assert "is not readable as parquet (" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut(tmp_path: Path, write: Write, images: Callable[..., np.ndarray], kept: float) -> None:
    path = write(tmp_path / NAME, images(30, 1), [0] * 30)
    os.truncate(path, int(path.stat().st_size * kept))
    assert "is not readable as parquet (" in refusal(tmp_path)


def test_a_file_with_a_hole(tmp_path: Path, write: Write, images: Callable[..., np.ndarray]) -> None:
    path = write(tmp_path / NAME, images(30, 1), [0] * 30)
    raw = bytearray(path.read_bytes())
    raw[4 : len(raw) // 2] = bytes(len(raw) // 2 - 4)
    path.write_bytes(raw)
    refusal(tmp_path)


IMAGES = pa.array([{"bytes": b"x", "path": "x"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
SCHEMAS = {
    "has the columns image: string, label: int64": {"image": ["x"], "label": [0]},
    "has the columns img: struct": {"img": IMAGES, "fine_label": [0]},
    "has no encoded images in img.bytes (img: string)": {"img": ["x"], "label": [0]},
    "has no encoded images in img.bytes (img: struct<path: string>)": {"img": [{"path": "x"}], "label": [0]},
    "has no encoded images in img.bytes (img: struct<bytes: string>)": {"img": [{"bytes": "x"}], "label": [0]},
    "has labels that are not whole numbers (label: string)": {"img": IMAGES, "label": ["cat"]},
}


@pytest.mark.parametrize("what", SCHEMAS)
def test_another_schema(tmp_path: Path, write: Write, what: str) -> None:
    write(tmp_path / NAME, table=pa.table(SCHEMAS[what]))
    text = refusal(tmp_path)
    assert what in text
    assert "img.bytes, label" in text, "what is wanted"


@pytest.mark.parametrize(("label", "shown"), [(10, "10"), (-1, "-1"), (None, "None")])
def test_a_label_that_is_no_class(tmp_path: Path, write: Write, images: Callable[..., np.ndarray], label: int | None, shown: str) -> None:
    write(tmp_path / NAME, images(3, 1), [0, 9, label])
    assert f"has the label {shown} in row 2, not one of 0..9" in refusal(tmp_path)


def test_images_that_are_missing_torn_or_of_another_size(tmp_path: Path, write: Write, images: Callable[..., np.ndarray]) -> None:
    good, large = images(1, 1)[0], images(1, 1, size=40)[0]
    file = io.BytesIO()
    Image.fromarray(good).save(file, "PNG")
    for bad, what in (
        (None, "has no image in row 1;"),
        (b"", "has an image in row 1 that cannot be decoded ("),
        (file.getvalue()[:200], "has an image in row 1 that cannot be decoded ("),
        (large, "has an image of 40x40 in row 1, not 32x32;"),
    ):
        write(tmp_path / NAME, [good, bad], [0, 1])
        assert what in refusal(tmp_path)


def test_only_the_two_usual_decoders_are_offered_to_untrusted_bytes(tmp_path: Path, write: Write) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "TIFF")
    write(tmp_path / NAME, [file.getvalue()], [0])
    assert "in row 0 that cannot be decoded (" in refusal(tmp_path)


def test_what_the_disk_refuses_keeps_its_errno(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=rf"^data\.root={tmp_path}: {NAME} cannot be read \(") as refused:
        read(tmp_path)
    assert refused.value.errno == errno.ENOENT
