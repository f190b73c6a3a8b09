"""Quoting, in one place. What is not a `Raw` is quoted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Raw(str):
    """A word the shell is meant to expand, written by us and never by a user: `Raw('"$run"')`."""


def word(value: object) -> str:
    """One shell word. Raises ValueError on a NUL, a newline or what is not UTF-8, which no argv we emit needs."""
    if isinstance(value, Raw):
        return str(value)
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
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name for an environment variable")
    return f"export {name}={word(value)}"


def block(argv: list[object], per_line: int = 1) -> str:
    """A long command, options on continuation lines, so that a diff of two scripts shows one option a line."""
    lines = [command(argv[:1])] + [command(argv[i : i + per_line]) for i in range(1, len(argv), per_line)]
    return " \\\n    ".join(lines)
