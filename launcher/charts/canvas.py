"""A picture without a window: matplotlib, asked for when there is something to draw, and where the PNG goes."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.errors import ConfigError, RunError
from launcher.rundir.rundir import write_atomic

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
    """The file that `to=` means, `name` in a directory, which need not be there yet. Raises ConfigError where there can be none."""
    path = Path(asked).expanduser().absolute()
    path = path / name if is_folder(asked) else path
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{TO}{asked}: the picture is a PNG; type {TO}{path.with_suffix('.png').name}, or a directory with / at its end")
    check(asked, path)
    return path


def is_folder(asked: str) -> bool:
    """Whether `to=` means a directory: one that is there, or what is called as none of the files."""
    path = Path(asked).expanduser()
    return path.is_dir() or asked.endswith("/") or not path.suffix


def check(asked: str, path: Path) -> None:
    """That a file may come to be there. Raises ConfigError."""
    if path.is_dir():
        raise ConfigError(f"{TO}{asked}: there is a directory of that name; type another")
    there = next(each for each in path.parents if os.path.lexists(each))
    if not there.is_dir():
        raise ConfigError(f"{TO}{asked}: {there} is a file, and no directory; type another")


def put(path: Path, content: str | bytes) -> None:
    """A whole file or nothing; its directory is made, as that of an export is. Raises RunError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{TO}{path}: {path.parent} cannot be made ({error.strerror}); type another directory") from error
    write_atomic(path, content)
