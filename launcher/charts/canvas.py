"""A picture without a window: matplotlib, asked for when there is something to draw, and where the PNG goes."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.errors import ConfigError

TO = "to="
_DPI = 110


def png(inches: tuple[float, float], fill: Callable[[Any], None], verb: str) -> bytes:
    """What `fill` draws on a figure of that size. Raises ConfigError where there is nothing to draw with; `verb` wants it."""
    try:
        import matplotlib
        from matplotlib.figure import Figure  # without pyplot: no window, and no state
    except ImportError as error:
        raise ConfigError(f"{verb} needs matplotlib ({error}); pip install 'launcher[plot]'") from error
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home that cannot be written, a cache of fonts
    library: Any = matplotlib
    with warnings.catch_warnings(), library.rc_context():
        warnings.simplefilter("ignore")  # signs that the font has not
        library.rcdefaults()
        figure: Any = Figure(inches, dpi=_DPI, layout="constrained")
        fill(figure)
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    return picture.getvalue()


def place(asked: str, name: str) -> Path:
    """The file that `to=` means, `name` in a directory. Raises ConfigError where there can be none."""
    path = Path(asked).expanduser().absolute()
    path = path / name if path.is_dir() else path
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{TO}{asked}: the picture is a PNG; type {TO}{path.with_suffix('.png').name}")
    if not path.parent.is_dir():
        raise ConfigError(f"{TO}{asked}: there is no directory {path.parent}; make it, or type another")
    return path
