"""What is to be found of a row: one of some classes, or numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = ("auto", "classes", "number")
_MOST_CLASSES = 1000
_MOST_GUESSED, _ROWS_EACH = 100, 4
"""Whole numbers are taken for classes where they are at most so many, and a class has so many rows in the mean."""


class Targets(NamedTuple):
    values: NDArray[Any]
    """int64 (n,), places in `classes`; or float32 (n, numbers)."""
    classes: tuple[str, ...] | None
    """Sorted; None: numbers."""


def of(values: NDArray[Any], kind: str, where: str) -> Targets:
    """Of texts, truth values or numbers (n,), or numbers (n, k). `kind`: one of KINDS; `where`: the key that named them, as it was typed.
    Raises ValueError."""
    if kind == "number" or (kind == "auto" and not _are_classes(values)):
        if values.dtype.kind not in "iuf":
            raise ValueError(f"{where}: it has texts or truth values, such as {values[0]}, and no numbers; type data.kind=classes")
        return Targets(np.asarray(values, np.float32).reshape(len(values), -1), None)
    if values.ndim > 1:
        raise ValueError(f"{where}: a row has {values[0].size} targets, and one class is needed; type data.kind=number")
    found, places = np.unique(values, return_inverse=True)
    if len(found) > _MOST_CLASSES:
        raise ValueError(f"{where}: {len(found):,} kinds of value are too many for classes; type data.kind=number, or another target")
    if len(found) < 2:
        raise ValueError(f"{where}: there is one class only, {found[0]}, in all {len(values):,} rows; name another target")
    return Targets(places.astype(np.int64), tuple(_named(each) for each in found))


def _are_classes(values: NDArray[Any]) -> bool:
    if values.dtype.kind not in "iu":
        return values.dtype.kind != "f"
    return values.ndim == 1 and (count := len(np.unique(values))) <= _MOST_GUESSED and count * _ROWS_EACH <= len(values)


def _named(value: Any) -> str:
    return str(value).lower() if isinstance(value, np.bool_ | bool) else str(value)
