"""Losses of one class per sample, as sums: cross-entropy and the focal loss, with a weight for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn import functional as F


def cross_entropy(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, smoothing: float) -> torch.Tensor:
    """The sum over scores (N, classes) by labels (N,), or by their probabilities (N, classes); the term of a class by its weight. Smoothing
    as Szegedy et al. (2015, https://arxiv.org/abs/1512.00567, section 7) have it: of each label so much goes to all classes alike, each of
    which then counts by its own weight, as in `torch.nn.CrossEntropyLoss`."""
    return F.cross_entropy(scores, labels, weights, reduction="sum", label_smoothing=smoothing)


def focal(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, gamma: float) -> torch.Tensor:
    """The sum of -alpha (1 - p)^gamma log p, p the probability of the label (N,) (Lin et al., 2017, https://arxiv.org/abs/1708.02002,
    equation 5; there of two classes by a sigmoid, here of any number by softmax). `weights` are its alpha. Raises ValueError for labels
    that are probabilities: the paper's p is that of one class."""
    if labels.ndim > 1:
        raise ValueError("task.loss=focal: it takes one class for each label, and these are probabilities; type task.loss=cross_entropy")
    log_p = F.log_softmax(scores, 1).gather(1, labels[:, None])[:, 0]
    # 1 - p of a p near 1 has digits left by expm1 alone; at 0 the power of a gamma below 1 has no slope.
    modulated = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny).pow(gamma) * -log_p
    return (modulated if weights is None else weights[labels] * modulated).sum()


@contextmanager
def of_labels(scores: torch.Tensor, labels: torch.Tensor) -> Iterator[None]:
    """What torch says of labels (N,) that are none, in words of the config. It is asked only where it has refused them: on a GPU that would
    otherwise be a wait in each step, and there an assertion of the device has ended the process before. Raises ValueError."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if labels.device.type != "cpu" or labels.ndim != 1:
            raise
        classes = scores.shape[1]
        if labels.is_floating_point():
            kind = str(labels.dtype).removeprefix("torch.")
            raise ValueError(
                f"data: labels are {kind}, and task=classification takes whole numbers; return int(label), or type task=regression"
            ) from error
        bad = labels[(labels < 0) | (labels >= classes)]
        if not len(bad):
            raise
        raise ValueError(
            f"data: a sample has the label {bad[0].item()}, and model.num_classes={classes} takes 0 to {classes - 1}; type another "
            "model.num_classes, or mend the data set"
        ) from error


def weight_of(labels: torch.Tensor, weights: torch.Tensor | None) -> int | torch.Tensor:
    """What a sum over these labels is divided by: how many they are, or their classes' weights together, as in the mean of
    `torch.nn.CrossEntropyLoss`. Of probabilities each class counts by its share (torch divides those by their number, so that labels that
    are certain weigh otherwise than the same labels as numbers)."""
    if weights is None:
        return len(labels)
    return (labels.to(weights.dtype) @ weights if labels.ndim > 1 else weights[labels]).sum()


def balanced(counts: Sequence[int]) -> list[float]:
    """n / (k count) of each class, so that all k classes weigh alike and a sample weighs 1 in the mean (King and Zeng, 2001,
    https://doi.org/10.1093/oxfordjournals.pan.a004868; scikit-learn's `balanced`). 0 of a class that there is none of."""
    total, kinds = sum(counts), sum(count > 0 for count in counts)
    return [total / (kinds * count) if count else 0.0 for count in counts]
