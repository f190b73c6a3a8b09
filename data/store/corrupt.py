"""Samples that cannot be read: left out, named and counted, up to a limit; one more stops the run."""

from __future__ import annotations

from data.options import one_of
from data.store.files import notice


class Unlabelled(ValueError):
    """Of a sample that says itself that it has no label: null, or -1."""


class Corrupt:
    """`limit`: how many may be left out (data.max_corrupt). `unlabelled`: whether those without a label are such samples (refuse), or are
    left out beside them (drop). Which ones is decided once, when the files are decoded, and is part of the
    decoded copy: every rank, every attempt and every later run has the same samples in the same order."""

    def __init__(self, limit: int, unlabelled: str = "refuse") -> None:
        """Raises ValueError naming the option."""
        one_of("data.unlabelled", unlabelled, ("refuse", "drop"))
        self.limit, self.drops_unlabelled = limit, unlabelled == "drop"
        self.unlabelled = 0
        self.found: list[str] = []
        """Why each was left out, with its file and row."""

    def leave_out(self, error: ValueError) -> None:
        """Raises ValueError, naming the sample, where it is one too many."""
        if self.drops_unlabelled and isinstance(error, Unlabelled):
            self.unlabelled += 1
            return
        if len(self.found) == self.limit:
            hint = ", or type data.unlabelled=drop" if isinstance(error, Unlabelled) else ""
            raise self._too_many(f"{error}{hint}") from error
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
        if self.unlabelled:
            notice(f"data: {self.unlabelled:,} samples have no label and are left out (data.unlabelled=drop)")
        if self.found:
            notice(f"WARNING: {len(self.found)} samples cannot be read and are left out (data.max_corrupt={self.limit}): {self.found[0]}")
