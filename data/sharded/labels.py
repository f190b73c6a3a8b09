"""Labels of samples as numbers: those that are words are numbered in the order of the alphabet."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.store.files import notice

KINDS = ("class", "number")
_NO_CLASS = re.compile(r"[+-]\d+|[+-]?\d*\.\d+")
"""-1 is how many sets say that there is none; of 1.0 nobody knows whether it is the first or the second."""


class Labels:
    """As they come, of however many samples."""

    def __init__(self, kind: str) -> None:
        """`kind`: class, of a whole number or a word; number, of any."""
        self.array = {"class": "labels.int64", "number": "labels.float64"}[kind]
        self._seen: dict[str, int] = {}
        self._of = array("q" if kind == "class" else "d")
        self._is_class = kind == "class"

    def __len__(self) -> int:
        return len(self._of)

    def add(self, labels: Iterable[Any]) -> None:
        """Raises ValueError or TypeError where one is none; then none of them is taken."""
        if self._is_class:
            self._of.extend([self._seen.setdefault(label, len(self._seen)) for label in [class_of(label) for label in labels]])
        else:
            self._of.extend([_number(label) for label in labels])

    def numbered(self) -> tuple[list[str] | None, NDArray[Any]]:
        """The words, where they are some; the numbers (n,)."""
        found = np.array(self._of)
        if not self._is_class:
            return None, found
        if all(label.isdecimal() for label in self._seen):
            return None, np.array([int(label) for label in self._seen], np.int64)[found]
        if numbers := [label for label in self._seen if label.isdecimal()]:
            words = [label for label in self._seen if not label.isdecimal()]
            notice(
                f"WARNING: labels are words ({len(words)}, the first {words[0]!r:.40}) and whole numbers ({len(numbers)}, the first "
                f"{numbers[0]}): all are taken for words and numbered by the alphabet; if one is a slip, mend it"
            )
        classes = sorted(self._seen)
        places = {name: at for at, name in enumerate(classes)}
        return classes, np.array([places[label] for label in self._seen], np.int64)[found]


def as_trained(root: object, labels: NDArray[Any], words: list[str] | None, trained: tuple[str, ...], classes: int) -> NDArray[Any]:
    """Those of a split with the numbers that their words have in training. Raises ValueError."""
    if (words is None) != (not trained):
        raise ValueError(f"data.root={root}: labels are words in one split and numbers in another; write them alike")
    if words is None:
        if labels.dtype == np.int64 and labels.max(initial=-1) >= classes:
            raise ValueError(
                f"data.root={root}: label {labels.max()} is in no training shard, which have 0 to {classes - 1}; write labels alike in "
                "all splits"
            )
        return labels
    if strange := [name for name in words if name not in trained]:
        raise ValueError(f"data.root={root}: the class {strange[0]!r} is not in the training shards")
    places = {name: place for place, name in enumerate(trained)}
    return labels if tuple(words) == trained else np.array([places[name] for name in words], np.int64)[labels]


def class_of(value: Any) -> str:
    """A whole number or a word, as a word. Raises ValueError or TypeError."""
    if not isinstance(value, str | int):
        raise TypeError(f"{value!r:.40} is neither a whole number nor a word")
    label = str(value)
    if not label:
        raise ValueError("it is empty")
    if not label.isprintable() or _NO_CLASS.fullmatch(label):
        raise ValueError(f"{label!r:.40} is neither a whole number from 0 nor a word")
    if label.isdecimal() and len(label) > 18:
        raise ValueError(f"{label:.40} is too large")
    return label


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise TypeError(f"{value!r:.40} is no number")
    return number
