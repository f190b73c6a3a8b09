"""What was typed, as inputs one by one: files, folders, patterns, arrays, tables, lines of stdin. None is read before it is asked for."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launcher.errors import ConfigError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
TEXTS = (".txt",)
ROWS = (".csv", ".parquet", ".npy", ".npz")


class Item(NamedTuple):
    name: str
    path: Path | None = None
    """Of a picture."""
    row: Any = None
    text: str | None = None


def check(words: Sequence[str], kind: str) -> None:
    """Raises ConfigError for what is not there, before anything is said of the others."""
    for word in words:
        if not word:
            raise ConfigError("an input is an empty text, as of a variable that is not set; type a file, a folder, a pattern, or -")
        if os.path.isdir(word) and next(_below(Path(word), _suffixes(kind)), None) is None:  # noqa: PTH112 - as below
            raise ConfigError(f"{word}: there is no file in it of those that are read ({', '.join(_suffixes(kind))}); type another folder")
        if kind != "text" and word != "-" and not os.path.lexists(word) and not _matched(word):
            raise ConfigError(f"{word}: there is no such file, folder or pattern that finds one; type another, or - for names on stdin")


def paths(words: Sequence[str], kind: str) -> Iterator[Path | str]:
    """Files by what was typed, in its order, those of a folder by their names; `-` is stdin: a path, or a text, a line. Of a folder no more
    is held than the names in it."""
    for word in words:
        if word == "-":
            if kind == "text":
                yield sys.stdin.read()
            else:
                yield from (Path(line.rstrip("\n")) for line in sys.stdin if line.strip())
        elif os.path.isdir(word):  # noqa: PTH112 - a text may be longer than any name
            yield from _below(Path(word), _suffixes(kind))
        elif found := [] if os.path.lexists(word) else _matched(word):
            yield from (Path(each) for each in found if not Path(each).is_dir())
        elif kind == "text" and not os.path.lexists(word):
            yield word
        else:
            yield Path(word)


def count(words: Sequence[str], kind: str) -> int:
    """Of inputs; 0 where they would have to be read for it: stdin, and the rows of tables and arrays."""
    return 0 if "-" in words or kind not in ("image", "text") else sum(1 for _ in paths(words, kind))


def _suffixes(kind: str) -> Sequence[str]:
    return {"image": PICTURES, "text": TEXTS}.get(kind, ROWS)


def _matched(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - of a whole path, and as a shell has it


def _below(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(names) if name.lower().endswith(tuple(suffixes)) and not name.startswith("."))
