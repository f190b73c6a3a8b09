"""Whether two models differ, by what each came to on the same samples.

McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947), in its exact form: the
binomial. Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1 (1945). Efron, Bootstrap methods: another look at the
jackknife, Annals of Statistics 7 (1979): percentiles. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal
of Statistics 6 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

DRAWS, SEED = 2000, 0
LEAST_DRAWS, WORK = 200, 200_000_000
"""Samples that are drawn in all, at most, unless fewer than the least draws would be left."""
_EXACT = 25
"""Differences up to which Wilcoxon's is counted out; a normal distribution is near enough then."""


def mcnemar(first_alone: int, second_alone: int) -> float:
    """Two-sided: how likely at least as uneven a split is of the samples on which exactly one is right, were each a toss of a coin."""
    count, less = first_alone + second_alone, min(first_alone, second_alone)
    whole = math.lgamma(count + 1) - count * math.log(2)
    tail = math.fsum(math.exp(whole - math.lgamma(k + 1) - math.lgamma(count - k + 1)) for k in range(less + 1))
    return min(1.0, 2 * tail)


def wilcoxon(differences: Any) -> float:
    """Two-sided, of a vector; what does not differ is left out. Ties have their mean rank. 1 where nothing differs."""
    import numpy as np

    values = differences[differences != 0]
    if not len(values):
        return 1.0
    _, places, counts = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[places]
    positive, count = float(ranks[values > 0].sum()), len(values)
    if count <= _EXACT and len(counts) == count:
        return _counted(count, min(positive, count * (count + 1) / 2 - positive))
    ties = float((counts.astype(float) ** 3 - counts).sum())
    spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24 - ties / 48)
    return math.erfc(abs(positive - count * (count + 1) / 4) / spread / math.sqrt(2))


def _counted(count: int, least: float) -> float:
    """Of all signs that ranks 1..count can have, the share with a sum at most `least`, twice."""
    ways = [1] + [0] * (count * (count + 1) // 2)
    for rank in range(1, count + 1):
        for total in range(len(ways) - 1, rank - 1, -1):
            ways[total] += ways[total - rank]
    return min(1.0, 2 * sum(ways[: int(least) + 1]) / 2**count)


def draws_for(samples: int) -> int:
    return max(LEAST_DRAWS, min(DRAWS, WORK // max(1, samples)))


def bootstrap(differences: Any) -> list[tuple[float, float]]:
    """The 95 % percentile interval of the mean of each column, samples drawn as pairs. All columns have the same draws, by SEED."""
    import numpy as np

    samples, draws = len(differences), draws_for(len(differences))
    random = np.random.default_rng(SEED)
    means = np.empty((draws, differences.shape[1]))
    for draw in range(draws):
        means[draw] = np.bincount(random.integers(samples, size=samples), minlength=samples) @ differences / samples
    return [(float(low), float(high)) for low, high in np.percentile(means, [2.5, 97.5], axis=0).T]


def holm(found: Sequence[float]) -> list[float]:
    """Each p, corrected for how many there are."""
    corrected, highest = [0.0] * len(found), 0.0
    for rank, place in enumerate(sorted(range(len(found)), key=found.__getitem__)):
        highest = max(highest, min(1.0, (len(found) - rank) * found[place]))
        corrected[place] = highest
    return corrected
