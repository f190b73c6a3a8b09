"""Reading a file while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


class Tail:
    """Whole new lines of a file at each call; a file that is not there yet has none."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def lines(self) -> Iterator[str]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from whole.decode("utf-8", errors="replace").splitlines()
