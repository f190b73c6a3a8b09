"""What is printed was typed, written or answered by somebody else: a terminal gets the text of it, and no commands.

An escape sequence in a log can write into the clipboard, rename the window or move the cursor over a line that was there; a mark for the
direction of writing shows a name backwards. Each such character is shown by its number instead.
"""

from __future__ import annotations

import contextlib
import sys

from launcher.errors import plain

TYPE_CHECKING = False  # typing itself is not free, and a help text needs none of it
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from typing import Any, TextIO


def one_line(text: str, most: int = 300) -> str:
    """For a cell of a table or a line of its own, whatever a name or a log holds."""
    text = plain(text[: most + 1].replace("\n", " ").replace("\t", " "))
    return text if len(text) <= most else f"{text[: most - 2]} …"


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
