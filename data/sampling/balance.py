"""Classes that come equally often, however rare they are (`loader.balance=classes`): an order of draws, as data/sampling/order.py has one
of samples, a function of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.sampling.order import BALANCE, epoch_order, words

HOW = ("none", "classes")
_AT_ONCE = 4096
"""Draws of a small class that are shuffled together, round by round."""


def check(balance: str, window: int = 0) -> None:
    """Raises ValueError naming the key."""
    if balance not in HOW:
        raise ValueError(f"loader.balance={balance}: not possible; type one of {', '.join(HOW)}")
    if balance != "none" and window:
        raise ValueError(
            f"loader.balance={balance}: rare samples lie in any shard, and loader.window={window} reads near ones; type loader.window=0"
        )


def balanced_order(labels: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """Positions in `labels` (n,) that epoch `epoch` visits, shape (n,).

    The draws of all epochs, one behind the other, go through the classes in turn, so that in any epoch two classes differ by one draw at
    most. Those of a class go through its samples in rounds, each in a shuffled order: of a class that is large none comes twice before all
    have come once, over as many epochs as that takes.
    """
    classes, place = np.unique(labels, return_inverse=True)
    counts = np.bincount(place)
    members = np.split(np.argsort(place, kind="stable"), np.cumsum(counts)[:-1])
    drawn: list[NDArray[np.int64]] = []
    for turn, (label, own) in enumerate(zip(classes.tolist(), members, strict=True)):
        begin, end = (max(0, -(-(whole * len(labels) - turn) // len(classes))) for whole in (epoch, epoch + 1))
        drawn.append(own[_in_rounds(begin, end, len(own), seed, label)])
    return np.concatenate(drawn)[epoch_order(seed, epoch, len(labels))]


def _in_rounds(begin: int, end: int, n: int, *key: int) -> NDArray[np.int64]:
    """Places `begin` to `end` of an endless row, in which 0..n-1 come shuffled again and again."""
    rounds = max(1, _AT_ONCE // n)
    blocks = range(begin // (rounds * n), -(-end // (rounds * n)))
    made = [words(rounds * n, BALANCE, *key, block).reshape(rounds, n).argsort(1, kind="stable").ravel() for block in blocks]
    first = begin - blocks.start * rounds * n
    return np.concatenate((np.zeros(0, np.int64), *made))[first : first + end - begin]


def labels_of(name: str, said: Any, samples: int) -> NDArray[np.int64]:
    """`said`: what a set says of the class of each of its samples, or None. Raises ValueError where that is none."""
    found = np.zeros(0) if said is None else np.asarray(said)
    if found.shape != (samples,) or found.dtype.kind not in "iu" or found.min(initial=0) < 0:
        does = "does not say" if said is None else "has something else there than"
        raise ValueError(
            f"data: {name} {does} which class each of its {samples:,} samples is, for loader.balance=classes or "
            "task.class_weights=balanced; add an attribute `labels`, a list of whole numbers from 0, or leave that out"
        )
    return found.astype(np.int64)


def said_by(data: Any) -> Sequence[int] | None:
    """What a map-style set says of its samples' classes: `labels`, or `targets` as torchvision's have it."""
    return next((said for name in ("labels", "targets") if (said := getattr(data, name, None)) is not None), None)
