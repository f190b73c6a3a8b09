"""Who decodes JPEGs: what is there and fastest here, found by trying once. Two may differ in the last bits, so a run keeps its one.

Each is asked for a picture no smaller than is needed, and decodes at a half, a quarter or an eighth where that is enough, as Pillow's draft
does. Pillow-SIMD is Pillow to whoever imports it. torchvision's `decode_jpeg` is not here: it always decodes the whole picture, and no
build of it beside a torch for CPUs could be run.
"""

from __future__ import annotations

import functools
import importlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.options import one_of
from data.store.files import first_line, notice

Decode = Callable[[bytes, int, int], NDArray[np.uint8]]
"""A JPEG, and how wide and how high it must be at least: (height, width, 3). Raises whatever its library does."""

AUTO, PILLOW = "auto", "pillow"
_GAIN = 0.95
"""Of Pillow's time: for less it is not left."""
_TRIES = 7


def _simplejpeg(module: Any) -> Decode:
    def decode(raw: bytes, width: int, height: int) -> NDArray[np.uint8]:
        high, wide = module.decode_jpeg_header(raw)[:2]
        factor = next((each for each in (8, 4, 2) if -(-high // each) >= height and -(-wide // each) >= width), 1)
        # It would take three eighths, too, which Pillow does not, and rounds down where it compares.
        return module.decode_jpeg(raw, "RGB", min_height=high // factor, min_width=wide // factor, min_factor=1)

    return decode


def _turbojpeg(module: Any) -> Decode:
    turbo = module.TurboJPEG()
    factors = sorted((one for one in turbo.scaling_factors if one[0] == 1), key=lambda one: -one[1])

    def decode(raw: bytes, width: int, height: int) -> NDArray[np.uint8]:
        whole = turbo.decode_header(raw)
        fits = (one for one in factors if -(-whole[0] // one[1]) >= width and -(-whole[1] // one[1]) >= height)
        return turbo.decode(raw, pixel_format=module.TJPF_RGB, scaling_factor=next(fits, None))

    return decode


_MADE: dict[str, tuple[str, Callable[[Any], Decode]]] = {
    "simplejpeg": ("simplejpeg", _simplejpeg),
    "turbojpeg": ("turbojpeg", _turbojpeg),
}
KNOWN = (AUTO, PILLOW, *_MADE)


def chosen(decoder: str) -> str:
    """Its name: of auto, the fastest. Raises ValueError where it is not known, or not here."""
    one_of("data.decoder", decoder, KNOWN)
    if decoder == AUTO:
        return _fastest()
    if decoder != PILLOW:
        opened(decoder)
    return decoder


@functools.cache
def opened(decoder: str) -> Decode:
    """One other than Pillow. Raises ValueError."""
    module, made = _MADE[decoder]
    try:
        return made(importlib.import_module(module))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # a library below it that is not there, or another's build
        raise ValueError(
            f"data.decoder={decoder}: {module} cannot be used here ({type(error).__name__}: {first_line(error)}); install it, or start a "
            "run with data.decoder=pillow: another decoder gives other last bits"
        ) from error


@functools.cache
def _fastest() -> str:
    """Of those that are here, by a picture of a usual size. Measured once in a process, and said."""
    raw = _picture()
    seconds = {PILLOW: _timed(_by_pillow, raw)}
    for name in _MADE:
        try:
            seconds[name] = _timed(opened(name), raw)
        except ValueError:
            continue  # it is not here
    best = min(seconds, key=lambda name: seconds[name])
    best = best if seconds[best] < _GAIN * seconds[PILLOW] else PILLOW
    if len(seconds) > 1:
        said = ", ".join(f"{name} {1000 * each:.2f} ms" for name, each in seconds.items())
        notice(f"data: JPEGs are decoded by {best} (data.decoder=auto; one of 500 x 375: {said})")
    return best


def _timed(decode: Decode, raw: bytes) -> float:
    """The least of some tries: whatever else the machine does only adds to it."""
    taken: list[float] = []
    for _ in range(_TRIES):
        begin = time.perf_counter()
        decode(raw, 250, 188)
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _by_pillow(raw: bytes, width: int, height: int) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(raw)) as image:
        image.draft("RGB", (width, height))
        return np.asarray(image.convert("RGB"))


def _picture() -> bytes:
    """Waves of three colours, 500 x 375."""
    from PIL import Image

    across, down = np.meshgrid(np.arange(500), np.arange(375))
    waves = [np.sin(across / 7 + down / wide) * 60 + np.cos(down / 11) * 60 + 128 for wide in (5, 13, 29)]
    file = io.BytesIO()
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(file, "jpeg", quality=90)
    return file.getvalue()
