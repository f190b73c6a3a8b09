"""What was typed, as inputs one by one: files, folders, patterns, arrays, tables, lines of stdin. None is read before it is asked for."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launcher.errors import ConfigError
from launcher.predict import rows

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


class Item(NamedTuple):
    name: str
    path: Path | None = None
    """Of a picture."""
    row: Any = None
    text: str | None = None


def paths(words: Sequence[str], kind: str) -> Iterator[Path | str]:
    """Files by what was typed, in its order, those of a folder by their names; `-` is stdin: a path, or a text, a line. Raises ConfigError
    for what is not there."""
    for word in words:
        if not word:
            raise ConfigError("an input is an empty text, as of a variable that is not set; type a file, a folder, a pattern, or -")
        if word == "-":
            if kind == "text":
                yield sys.stdin.read()
            else:
                yield from (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
        elif Path(word).is_dir():
            suffixes = rows.SUFFIXES if kind in ("table", "array", "tensors") else PICTURES
            yield from _some(_below(Path(word), suffixes), f"{word}: there is no file in it of those that are read ({', '.join(suffixes)})")
        elif os.path.lexists(word):
            yield Path(word)
        elif found := sorted(glob.glob(word, recursive=True)):  # noqa: PTH207 - of a whole path, and as a shell has it
            yield from (Path(each) for each in found if not Path(each).is_dir())
        elif kind == "text":
            yield word
        else:
            raise ConfigError(f"{word}: there is no such file, folder or pattern that finds one; type another, or - for names on stdin")


def _some(found: Iterator[Path], why: str) -> Iterator[Path]:
    """Raises ConfigError where there is none."""
    first = next(found, None)
    if first is None:
        raise ConfigError(f"{why}; type another folder")
    yield first
    yield from found


def _below(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(names) if name.lower().endswith(tuple(suffixes)) and not name.startswith("."))
