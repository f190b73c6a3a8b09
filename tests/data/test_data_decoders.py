"""Who decodes JPEGs: the fastest that is here, frozen with the run, and near what Pillow makes of them."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.vision import decoders
from data.vision.picture import Picture
from data.webdataset import WebDataset


@pytest.fixture(autouse=True)
def _anew() -> Any:
    yield
    decoders.opened.cache_clear()
    decoders._fastest.cache_clear()


def jpeg(width: int, height: int, mode: str = "RGB") -> bytes:
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([128 + 90 * np.sin(across / wide + down / 9) for wide in (3, 7, 15)], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "jpeg")
    return file.getvalue()


def stand_in(monkeypatch: pytest.MonkeyPatch, decode: Any) -> None:
    module: Any = ModuleType("simplejpeg")
    module.decode_jpeg, module.decode_jpeg_header = decode, lambda raw: (64, 64, "RGB", "420")
    monkeypatch.setitem(sys.modules, "simplejpeg", module)
    monkeypatch.setitem(sys.modules, "turbojpeg", None)


def black(raw: bytes, colours: str, *, min_height: int, min_width: int, min_factor: int) -> np.ndarray:
    return np.zeros((min_height, min_width, 3), np.uint8)


@pytest.mark.parametrize("name", ["simplejpeg", "turbojpeg"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_others_are_within_a_few_levels_of_pillow(name: str, mode: str) -> None:
    try:
        decoders.opened(name)
    except ValueError as error:
        pytest.skip(str(error))  # no dependency: the line says what to install
    for width, height in ((90, 70), (333, 250), (640, 481)):
        raw = jpeg(width, height, mode)
        plain, other = (Picture(64, 1.0, False, (0, 0, 0), (1, 1, 1), each).of(io.BytesIO(raw)) for each in ("pillow", name))
        assert (plain - other).abs().max() * 255 <= 6


def test_the_faster_one_is_taken_and_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(monkeypatch, black)
    assert decoders.chosen("auto") == "simplejpeg"
    assert "JPEGs are decoded by simplejpeg (data.decoder=auto" in capsys.readouterr().err
    picture = Picture(8, 1.0, False, (0, 0, 0), (1, 1, 1), "auto")
    assert picture.decoder == "simplejpeg"
    assert torch.equal(picture.of(io.BytesIO(jpeg(64, 64))), torch.zeros(3, 8, 8))
    with pytest.raises(FileNotFoundError):  # what it is asked for comes first
        WebDataset(str(tmp_path / "none"), decoder="auto")


def test_without_others_it_is_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("simplejpeg", "turbojpeg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert decoders.chosen("auto") == "pillow"


def test_one_that_is_not_here_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(ValueError, match=r"data.decoder=simplejpeg: simplejpeg cannot be used here \(.*install it, or start a run with"):
        Picture(8, 1.0, False, decoder="simplejpeg")
    with pytest.raises(ValueError, match=r"data.decoder=pil: not known; type one of auto, pillow, simplejpeg, turbojpeg"):
        Picture(8, 1.0, False, decoder="pil")


def test_what_another_does_not_read_pillow_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*words: Any, **more: Any) -> np.ndarray:
        raise ValueError("no")

    stand_in(monkeypatch, refuses)
    plain, other = Picture(8, 1.0, False), Picture(8, 1.0, False, decoder="simplejpeg")
    for raw in (jpeg(64, 48), jpeg(64, 48, "CMYK")):
        assert torch.equal(plain.of(io.BytesIO(raw)), other.of(io.BytesIO(raw)))
    with pytest.raises(ValueError, match="is no picture that can be read"):
        other.of(io.BytesIO(jpeg(64, 48)[:300]))
