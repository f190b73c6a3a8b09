"""Where texts come from: a plain file, JSON lines, Hugging Face's parquet, or a folder of any one of them.

A document is a file of text, a line's field or a row's. What is wrong with one is a ValueError that names the file and the line or row.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.store.files import first_line
from data.store.parquet import read_texts

KINDS = (".txt", ".jsonl", ".parquet")
_MOST_LINE = 1 << 30
"""Bytes: a file without line ends is not read into memory to its end."""

PIECE = 1 << 20
"""Bytes from which on a document is cut: making tokens takes a hundred times as much memory as there is text at once."""
_CUTS = tuple(map(re.compile, (rb"\S\n(?=\S)", rb"\n(?=\S)", rb"\S(?= )", rb"[\x00-\xff](?=[^\x80-\xbf])")))
"""Behind what, the best first: a single line end (tokens of pairs of bytes are then what they would be in the whole), the last of several,
a word, a character of UTF-8."""


class Piece(NamedTuple):
    """Of a document, most often all of it."""

    text: bytes
    """In UTF-8 where it comes out of JSON or parquet; a file of text may hold any bytes."""
    done: float
    """How much has been read then."""
    ends: bool
    """Whether it is the last of its document."""


class Sources(NamedTuple):
    kind: str
    """One of KINDS. A file with another ending is a text."""
    files: list[Path]
    """In the order of their names."""


def find(path: Path, asked: str) -> Sources:
    """The files of `path`. `asked`: what the user typed for it. Raises FileNotFoundError; ValueError where a folder has two kinds."""
    if not path.exists():
        raise FileNotFoundError(f"{asked}: there is no {path}; type data.path=/path/to/a.txt, or that of a folder of them")
    if not path.is_dir():
        return Sources(path.suffix if path.suffix in KINDS else KINDS[0], [path])
    found = {kind: files for kind in KINDS if (files := sorted(file for file in path.glob(f"*{kind}") if file.is_file()))}
    if not found:
        raise FileNotFoundError(
            f"{asked}: {path} has no *.txt, *.jsonl or *.parquet; type the path of a text, or of a folder of texts of one of these kinds"
        )
    if len(found) > 1:
        kinds = " and ".join(f"*{kind}" for kind in found)
        raise ValueError(f"{asked}: {path} has {kinds}; type the path of one file, or of a folder with one of these kinds")
    return Sources(*next(iter(found.items())))


def read(kind: str, file: Path, field: str, *, utf8: bool) -> Iterator[Piece]:
    """The documents of a file that are not empty, in their order. Raises ValueError, where `utf8` also if a text is in another encoding;
    OSError."""
    if kind == ".txt":
        yield from _of_text(file, utf8)
        return
    found = _of_lines(file, field) if kind == ".jsonl" else ((text.encode(), done) for text, done in read_texts(file, field))
    for text, done in found:
        yield from (Piece(text[begin:end], done, end == len(text)) for begin, end in _cuts(text))


def mapped(file: Path) -> np.ndarray:
    """Its bytes, (n,) uint8, in memory that all processes of a node share. Raises OSError."""
    # "c" (copy on write) shares pages as "r" does; but torch warns of memory that it may not write to. Nothing cannot be mapped.
    return np.asarray(np.memmap(file, np.uint8, mode="c")) if file.stat().st_size else np.zeros(0, np.uint8)


def _cuts(text: bytes | mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where the pieces begin and end."""
    begin = 0
    while begin < len(text):
        end = min(begin + 2 * PIECE, len(text))
        if end < len(text):
            found = (cut.search(text, begin + PIECE, end) for cut in _CUTS)
            end = next((match.end() for match in found if match), end)
        yield begin, end
        begin = end


def _of_text(path: Path, utf8: bool) -> Iterator[Piece]:
    size, line = path.stat().st_size, 1
    if not size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for begin, end in _cuts(text):
            piece = text[begin:end]
            try:
                piece.decode() if utf8 else None
            except UnicodeDecodeError as error:
                line += piece.count(b"\n", 0, error.start)
                raise ValueError(
                    f"data.path={path}: line {line} is no UTF-8, which data.tokenizer reads; write the file anew in it"
                ) from error
            line += piece.count(b"\n")
            yield Piece(piece, end / size, end == len(text))


def _of_lines(path: Path, field: str) -> Iterator[tuple[bytes, float]]:
    size = max(1, path.stat().st_size)
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MOST_LINE), b""), 1):
            if line.strip():
                try:
                    yield _field(line, field), file.tell() / size
                except ValueError as error:
                    raise ValueError(f"data.path={path}: line {number} {error}") from error


def _field(line: bytes, field: str) -> bytes:
    """Raises ValueError that says what the line is instead."""
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else ", and has no end: the file may be cut"
        raise ValueError(f"is no JSON ({first_line(error)}){cut}; mend it, or copy the file again") from error
    if not isinstance(entry, dict):
        raise ValueError(f"is no object but {line[:40]!r}; each line has to be one, with the text in a field")
    if field not in entry:
        fields = ", ".join(map(ascii, list(entry)[:20])) or "none"
        raise ValueError(f"has no field {field!r}, but {fields}; name the one with the text: data.field=")
    text = entry[field]
    if not isinstance(text, str):
        raise ValueError(f"has {ascii(text)[:40]} in field {field!r}, which is no text; name the field with the text: data.field=")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"has half a surrogate pair in field {field!r}, which is no text; mend it") from error
