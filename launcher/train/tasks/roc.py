"""The area under the curve of true over false positives: how likely a sample of a class has a higher score for it than one of another."""

from __future__ import annotations

import torch


def areas(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(classes,) float64, each class against all others, of a model's scores (N, classes) and labels (N,): the statistic of Mann and
    Whitney over the pairs there are, in which equal scores count half, by mid-ranks (Hanley and McNeil, 1982,
    https://doi.org/10.1148/radiology.143.1.7063747). NaN for a class that no sample has, or all.

    A sum of halves, and so exact: in whichever order samples come, the same bits.
    """
    odds = log_odds(scores)
    result = torch.full((odds.shape[1],), float("nan"), dtype=torch.float64)
    for label, column in enumerate(odds.unbind(1)):
        is_own = labels == label
        own = int(is_own.sum())
        if pairs := own * (len(labels) - own):
            result[label] = (_mid_ranks(column)[is_own].sum() - own * (own + 1) / 2) / pairs
    return result


def log_odds(scores: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of each class, float64: in the order of its probability, which at 37 above the others is 1 already, and so no more
    than a tie."""
    scores = scores.double()
    best = scores.argmax(1, keepdim=True)
    odds = scores.log_softmax(1) - torch.log1p(-scores.softmax(1))
    others = scores.scatter(1, best, float("-inf")).logsumexp(1, keepdim=True)
    return odds.scatter(1, best, scores.gather(1, best) - others)


def _mid_ranks(values: torch.Tensor) -> torch.Tensor:
    """From 1; of equal values the middle one of theirs."""
    _, place, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0).double() - (counts.double() - 1) / 2)[place]
