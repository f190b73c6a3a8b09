"""What is printed was typed, written or answered by somebody else: a terminal gets the text of it, and no commands.

An escape sequence in a log can write into the clipboard, rename the window or move the cursor over a line that was there; a mark for the
direction of writing shows a name backwards. Each such character is shown by its number instead.
"""

from __future__ import annotations

import contextlib
import re
import sys

TYPE_CHECKING = False  # typing itself is not free, and a help text needs none of it
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any, TextIO

_COMMANDS = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Control characters of both kinds but line break and tab, marks for direction, what has no width, halves of characters. Not what joins
letters: names in Persian and families of faces need that."""


def plain(text: str) -> str:
    """Of one line or several."""
    return re.sub(_COMMANDS, _number, text)


def one_line(text: str, most: int = 300) -> str:
    """For a cell of a table or a line of its own, whatever a name or a log holds."""
    text = plain(text[: most + 1].replace("\n", " ").replace("\t", " "))
    return text if len(text) <= most else f"{text[: most - 2]} …"


def _number(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class _Plain:
    """A stream through which everything goes as `plain` leaves it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(plain(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def guarded() -> Generator[None]:
    """While a verb runs, whoever prints: the launcher, Hydra, a warning of Python's."""
    saved = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Plain(stream) if stream is not None else stream for stream in saved)  # pyright: ignore
    try:
        yield
    finally:
        sys.stdout, sys.stderr = saved


def exactly(text: str) -> None:
    """To a file or a pipe byte for byte, for it is to be run; on a terminal it is only looked at."""
    stream = sys.stdout
    if isinstance(stream, _Plain) and not stream.isatty():
        stream.stream.write(text)
    else:
        stream.write(text)
