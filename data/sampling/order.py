"""Which sample comes when: pure functions of (seed, epoch, index), with no torch and no state.

Everything is made from the raw 64-bit words of PCG64 seeded through SeedSequence. NumPy promises these words for ever
(NEP 19); it does not promise `Generator.permutation` or `Generator.integers`, whose streams have changed between
releases. So a run that is resumed under another NumPy, device, rank or world still sees the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# The streams of one seed. A number is never given a second meaning: that would change every old run.
SPLIT, ORDER, AUGMENT, STANDIN, FLIP, READ, SHIFT, PRODUCT, SHARD, WINDOW, BALANCE, CHANCE = range(1, 13)


def words(n: int, *key: int) -> NDArray[np.uint64]:
    """`n` random 64-bit words, a function of `key` alone; each part of `key` is a whole number >= 0."""
    if n == 0:
        return np.zeros(0, np.uint64)
    return np.asarray(np.random.PCG64(np.random.SeedSequence(list(key))).random_raw(n), np.uint64)


def words_of(places: NDArray[np.int64], column: int, first: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One random word for each of some samples, by its number: a function of (place, column) and a word, whoever else is asked for.

    SplitMix64's finalizer twice (Steele et al., 2014, https://doi.org/10.1145/2714064.2660195): a set of a hundred million needs no table.
    """
    return _mixed(_mixed(places.astype(np.uint64) * np.uint64(_ODD) + first) + np.uint64((column + 1) * _ODD % 2**64))


_ODD = 0x9E3779B97F4A7C15


def _mixed(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def shuffled(n: int, *key: int) -> NDArray[np.int64]:
    """A random order of 0..n-1, shape (n,): each index gets a random word, and the words are sorted."""
    return np.argsort(words(n, *key), kind="stable").astype(np.int64)


def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order in which epoch `epoch` visits the positions 0..n-1 of the training part, shape (n,)."""
    return shuffled(n, ORDER, seed, epoch)


class Windowed:
    """An order that stays near, for samples that lie in shards: shards one after the other in a random order, and samples drawn within
    windows of so many. As an array of the places of an epoch it can be cut, and only the windows of the cut are made: of a hundred million
    samples an epoch begins, or goes on in its middle, at once."""

    def __init__(self, sizes: NDArray[np.int64], window: int, seed: int, epoch: int) -> None:
        """`sizes`: samples of each shard, whose places follow each other."""
        order = shuffled(len(sizes), SHARD, seed, epoch)
        self._first = (np.cumsum(sizes) - sizes)[order]
        """The place of the first sample of each shard, in the order in which they come."""
        self._begins = np.cumsum(sizes[order]) - sizes[order]
        self._total, self._window, self._key = int(sizes.sum()), window, (seed, epoch)
        self._made: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, cut: slice) -> NDArray[np.int64]:
        begin, end, _ = cut.indices(self._total)
        windows = range(begin // self._window, -(-end // self._window)) if begin < end else ()
        parts = [self._of_window(number) for number in windows]
        before = windows[0] * self._window if windows else 0
        return np.concatenate((np.zeros(0, np.int64), *parts))[begin - before : end - before]

    def _of_window(self, number: int) -> NDArray[np.int64]:
        if self._made[0] != number:
            begin = number * self._window
            within = begin + shuffled(min(self._window, self._total - begin), WINDOW, *self._key, number)
            shard = np.searchsorted(self._begins, within, side="right") - 1
            self._made = number, self._first[shard] + within - self._begins[shard]
        return self._made[1]


def split(n: int, validation: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sample indices (training part, validation part) of `n` samples, both in shuffled order.

    The first `validation` of the shuffled indices are held out, so the parts of two sizes are nested.
    Raises ValueError where nothing would be left to train on.
    """
    if not 0 <= validation < n:
        raise ValueError(
            f"data.validation={validation}: there are {n} training samples, so nothing would be left to train on; "
            f"type data.validation= with a number from 0 to {n - 1}"
        )
    order = shuffled(n, SPLIT, seed)
    return order[validation:], order[:validation]


def stratified(labels: NDArray[np.int64], shares: Sequence[float], seed: int) -> list[NDArray[np.int64]]:
    """Places of `labels` (n,): a part for each share, and one more for the rest, each in shuffled order.

    Sorted by label they are dealt out at even distances, so that a part has its share of each label to within a sample or two. Labels that
    are all alike are shared out at random. Of a label that a part has and the rest has not, the rest gets one back, unless it is all that
    the part has: what is not trained on cannot be found.
    """
    drawn = shuffled(len(labels), SPLIT, seed)
    left = np.argsort(labels[drawn], kind="stable")  # places in `drawn`
    parts: list[NDArray[np.int64]] = []
    for share in shares:
        count = round(share * len(labels))
        ends = np.arange(len(left) + 1) * count // max(1, len(left))
        is_dealt = np.diff(ends) > 0
        parts.append(left[is_dealt])
        left = left[~is_dealt]
    of = labels[drawn]
    for number, part in enumerate(parts):
        new, first = np.unique(of[part], return_index=True)
        back = first[~np.isin(new, of[left])][: max(0, len(part) - 1)]
        parts[number], left = np.delete(part, back), np.append(left, part[back])
    return [drawn[np.sort(part)] for part in (*parts, left)]


def share(n: int, rank: int, world: int) -> slice:
    """The contiguous part of 0..n-1 that `rank` of `world` evaluates: parts differ by at most one sample."""
    return slice(n * rank // world, n * (rank + 1) // world)
