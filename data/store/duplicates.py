"""Samples that are there twice: kept, left out or refused, by `data.duplicates`. The first stays, in the order train, val, test.

Whether two are the same is a checksum's word: of pixels, of a file, of a row. Which are left out is decided once, and is part of
the decoded copy: every rank, every attempt and every later run has the same samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.options import one_of
from data.store.files import notice

POLICIES = ("keep", "drop", "refuse")
_COUNTS = ("repeated", "leaked", "at_odds")


class Duplicates:
    """What was met, as `data.duplicates` has it."""

    def __init__(self, policy: str) -> None:
        """Raises ValueError naming the option."""
        one_of("data.duplicates", policy, POLICIES)
        self.policy = policy
        self.found: dict[str, Any] = {**dict.fromkeys(_COUNTS, 0), "first": ""}
        """How often within a part, in a part before, with another label there; and the first as a line."""
        self._seen: dict[bytes, tuple[str, int | None, str]] = {}

    @property
    def matters(self) -> bool:
        return self.policy != "keep"

    def is_new(self, content: bytes, part: str, label: int | None, name: str) -> bool:
        """Whether nothing of the same content came before. Raises ValueError where that is refused."""
        key = hashlib.blake2b(content, digest_size=16).digest()
        if (first := self._seen.get(key)) is None:
            self._seen[key] = part, label, name
            return True
        before, of, known = first
        self.found["repeated" if before == part else "leaked"] += 1
        self.found["at_odds"] += label != of
        said = f"{name} ({part}) is {known} ({before}) again{'' if label == of else ', with another label'}"
        self.found["first"] = self.found["first"] or said
        if self.policy == "refuse":
            raise ValueError(f"data.duplicates=refuse: {said}; take one away, or type data.duplicates=drop, by which the first stays")
        return False

    def without(self, part: str, chunks: Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> Iterator[tuple[Any, Any]]:
        """Chunks of pictures and labels without what came before. Raises ValueError."""
        number = 0
        for images, labels in chunks:
            named = zip(images, labels.tolist(), range(number, number + len(labels)), strict=True)
            new = np.array([self.is_new(image.tobytes(), part, label, f"picture {place}") for image, label, place in named])
            number += len(labels)
            if new.any():
                yield images[new], labels[new]

    def accept(self, found: dict[str, Any]) -> None:
        """What a decoded copy left out."""
        self.found = found

    def tell(self) -> None:
        count = self.found["repeated"] + self.found["leaked"]
        if count:
            more = f", {self.found['leaked']:,} of them in a part before" if self.found["leaked"] else ""
            notice(f"data: {count:,} duplicates are left out (data.duplicates={self.policy}){more}: {self.found['first']}")
        if self.found["at_odds"]:
            notice(f"WARNING: {self.found['at_odds']:,} duplicates have another label than the first, which need not be the right one")
