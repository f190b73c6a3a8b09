"""Reading a file while it grows."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from launcher.trust import reading

SHOWN_BYTES = 1000
"""Of a line that is too long."""


class Tail:
    """Whole new lines of a file at each call; a file that is not there yet has none."""

    def __init__(self, path: Path, *, from_end: bool = False, bars: bool = False) -> None:
        """`bars`: what a bar has written over ends a line too, so that one that fills needs no end to be read."""
        self.path = path
        self._ends = b"\n\r" if bars else b"\n"
        self._offset = path.stat().st_size if from_end and path.exists() else 0
        self._cut = False  # the offset is within a line whose beginning was given

    def lines(self) -> Iterator[str]:
        """Of one that is longer than a line can be, the beginning."""
        with contextlib.suppress(OSError), reading.opened(self.path) as file:
            while data := self._next(file):
                end = data.find(b"\n") + 1 if self._cut else max(data.rfind(bytes([each])) for each in self._ends) + 1
                if not end and not self._cut and len(data) < reading.LINE_BYTES:
                    return
                self._offset += end or len(data)
                if not self._cut:
                    text = data[: end or SHOWN_BYTES].decode("utf-8", "replace")
                    yield from text.splitlines() if end else (f"{text} …",)
                self._cut = not end

    def _next(self, file: io.FileIO) -> bytes:
        """Raises OSError where nothing but a hole is left, which is no line: two gigabytes of it would be read for nothing."""
        file.seek(self._offset)
        if self._cut and hasattr(os, "SEEK_DATA"):
            self._offset = os.lseek(file.fileno(), self._offset, os.SEEK_DATA)
        return file.read(reading.LINE_BYTES)
