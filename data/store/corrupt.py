"""Samples that cannot be read: left out, named and counted, up to a limit; one more stops the run."""

from __future__ import annotations

from data.store.files import notice


class Corrupt:
    """`limit`: how many may be left out (data.max_corrupt). Which ones is decided once, when the files are decoded, and is part of the
    decoded copy: every rank, every attempt and every later run has the same samples in the same order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: list[str] = []
        """Why each was left out, with its file and row."""

    def leave_out(self, error: ValueError) -> None:
        """Raises ValueError, naming the sample, where it is one too many."""
        if len(self.found) == self.limit:
            raise self._too_many(str(error)) from error
        self.found.append(str(error))

    def accept(self, found: list[str]) -> None:
        """What a decoded copy left out. Raises ValueError where it is more than may be."""
        if len(found) > self.limit:
            raise self._too_many(found[self.limit])
        self.found = found

    def _too_many(self, why: str) -> ValueError:
        if self.limit:
            return ValueError(f"{why}; {self.limit} samples before it were left out, which is data.max_corrupt")
        return ValueError(f"{why}; or leave such samples out: data.max_corrupt=10")

    def tell(self) -> None:
        if self.found:
            notice(f"WARNING: {len(self.found)} samples cannot be read and are left out (data.max_corrupt={self.limit}): {self.found[0]}")
