"""Intervals by the percentile bootstrap (Efron and Tibshirani, 1993, An Introduction to the Bootstrap, chapter 13): the same statistic of
many samples that are drawn from the samples there are, as many, with replacement; between 2.5 and 97.5 of a hundred of those lies the
interval.

A draw is how often each sample was drawn. So a statistic is written once, as a function of weights, and what is reported is its value where
each weighs one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES, SEED = 1_000, 0
_LEAST = 100
_WORK = 3e9
"""Numbers that all draws together may look at: seconds."""

Numbers = NDArray[np.float64]
Statistic = Callable[[Numbers], Numbers]
"""Of weights (samples,) to (values,), NaN where there is none."""


class Intervals(NamedTuple):
    value: Numbers
    low: Numbers
    high: Numbers
    resamples: int


def intervals(samples: int, statistic: Statistic, cost: float = 0.0, seed: int = SEED) -> Intervals:
    """`cost`: numbers that the statistic looks at beside a sample's own; a very large set has fewer draws, and their number is said."""
    resamples = int(min(RESAMPLES, max(_LEAST, _WORK / max(samples + cost, 1))))
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = [
        statistic(np.bincount(generator.integers(0, samples, samples), minlength=samples).astype(np.float64)) for _ in range(resamples)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of what has no value in any draw
        low, high = np.nanpercentile(np.stack(drawn), (2.5, 97.5), axis=0)
    return Intervals(statistic(np.ones(samples)), low, high, resamples)


def share(part: Numbers, whole: Numbers) -> Numbers:
    """NaN where the whole is nothing."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)
