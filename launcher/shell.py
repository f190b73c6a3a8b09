"""Quoting, in one place. What is not a `Raw` is quoted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Raw(str):
    """A word the shell is meant to expand, written by us and never by a user: `Raw('"$run"')`."""


class Variable(NamedTuple):
    """Of the environment of the shell that runs the script."""

    name: str
    default: str | None = None


class Late(str):
    """A text of a config with parts that only the job's environment knows; as a str it is what the config has there, `${oc.env:NAME}` and
    all. As a word of a script it is completed by the shell that runs it.
    """

    pieces: tuple[str | Variable, ...]

    def __new__(cls, text: str, pieces: tuple[str | Variable, ...]) -> Late:
        made = super().__new__(cls, text)
        made.pieces = pieces
        return made


def glued(*parts: str) -> str:
    """The parts as one text; Late where one of them is."""
    if not any(isinstance(part, Late) for part in parts):
        return "".join(parts)
    return Late("".join(parts), tuple(piece for part in parts for piece in (part.pieces if isinstance(part, Late) else (part,))))


def variables(values: Iterable[object]) -> list[str]:
    """Names that the environment must have for these values."""
    late = (value for value in values if isinstance(value, Late))
    return sorted({piece.name for value in late for piece in value.pieces if isinstance(piece, Variable) and piece.default is None})


def _expanded(variable: Variable) -> str:
    """In double quotes. The script asks once, before it uses any, whether those without a default are there."""
    if variable.default is None:
        return f'"${{{variable.name}}}"'
    word(variable.default)  # what no word can be, no default can
    escaped = re.sub(r'([\\"$`}])', r"\\\1", variable.default)
    return f'"${{{variable.name}-{escaped}}}"'


def word(value: object) -> str:
    """One shell word. Raises ValueError on a NUL, a newline or what is not UTF-8, which no argv we emit needs."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Late):
        return "".join(_expanded(piece) if isinstance(piece, Variable) else word(piece) for piece in value.pieces)
    text = str(value)
    if "\0" in text or "\n" in text or "\r" in text:
        raise ValueError(f"{text!r} cannot be a word of a job script: it holds a line break or a NUL")
    if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
        raise ValueError(f"{text!r} cannot be a word of a job script: it is no text in UTF-8")
    return shlex.quote(text)


def command(argv: Iterable[object]) -> str:
    """argv as one line of shell."""
    return " ".join(word(part) for part in argv)


def export(name: str, value: object) -> str:
    """`export NAME=value`; never `--export=`, which splits values at commas."""
    return exports({name: value})


def exports(values: Mapping[str, object]) -> str:
    """All of them at once: bash expands every word before it sets any, so that none is made of another's new value."""
    for name in values:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name for an environment variable")
    return " ".join(["export", *(f"{name}={word(value)}" for name, value in values.items())])


def block(argv: list[object], per_line: int = 1) -> str:
    """A long command, options on continuation lines, so that a diff of two scripts shows one option a line."""
    lines = [command(argv[:1])] + [command(argv[i : i + per_line]) for i in range(1, len(argv), per_line)]
    return " \\\n    ".join(lines)
