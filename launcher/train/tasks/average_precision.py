"""Average precision as COCO's evaluation has it (Lin et al., 2014, https://arxiv.org/abs/1405.0312; `COCOeval` of cocoapi): ten overlaps
from 0.5 to 0.95, precision at 101 recalls, mean over the classes of which there is any."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from launcher.answers.boxes import area, overlaps, shared

OVERLAPS = torch.from_numpy(np.linspace(0.5, 0.95, 10))
RECALLS = torch.from_numpy(np.linspace(0, 1, 101))  # torch's own is another in the last bit
_IMAGES = 256
"""Matched at once."""


class Found(NamedTuple):
    """Of some images, one behind the other: D detections, those of an image best first, and G boxes that there are."""

    boxes: torch.Tensor
    """(D, 4)"""
    scores: torch.Tensor
    classes: torch.Tensor
    counts: torch.Tensor
    """(images,): detections of each."""
    true_boxes: torch.Tensor
    """(G, 4)"""
    true_classes: torch.Tensor
    true_ignored: torch.Tensor
    """bool: a detection that fits only one of these counts for nothing."""
    true_counts: torch.Tensor


def average_precision(found: Found, classes: int) -> torch.Tensor:
    """(classes, 10) float64: of each class and overlap; NaN for a class of which no box is sought."""
    return Matched(found, classes)()


class Matched:
    """Which detections are right, found out once; what that comes to, where images weigh differently."""

    def __init__(self, found: Found, classes: int, is_left_out: torch.Tensor | None = None) -> None:
        """`is_left_out` (D,) bool: a detection that counts for nothing unless it is right."""
        right, counts = (torch.cat(each, 1) for each in zip(*_matched(found), strict=True))
        counts = counts if is_left_out is None else counts & (right | ~is_left_out)
        image = torch.arange(len(found.counts)).repeat_interleave(found.counts)
        self._sought_in = torch.arange(len(found.true_counts)).repeat_interleave(found.true_counts)
        self._of_class: list[tuple[torch.Tensor, ...]] = []
        for label in range(classes):
            own = torch.nonzero(found.classes == label)[:, 0]
            order = own[torch.argsort(found.scores[own], descending=True, stable=True)]
            is_sought = (found.true_classes == label) & ~found.true_ignored
            self._of_class.append((right[:, order], counts[:, order], image[order], is_sought))

    def __call__(self, weights: torch.Tensor | None = None) -> torch.Tensor:
        """(classes, 10) float64, as `average_precision`. `weights` (images,) float64: how often each is there."""
        result = torch.full((len(self._of_class), len(OVERLAPS)), float("nan"), dtype=torch.float64)
        for label, (right, counts, image, is_sought) in enumerate(self._of_class):
            sought = float(is_sought.sum() if weights is None else weights[self._sought_in][is_sought].sum())
            if sought:
                result[label] = _area_under(right, counts, sought, None if weights is None else weights[image])
        return result


def _area_under(right: torch.Tensor, counts: torch.Tensor, sought: float, weights: torch.Tensor | None) -> torch.Tensor:
    """(10,) of detections (10, d) in the order of their scores, each as often as it weighs."""
    often = 1.0 if weights is None else weights
    hits = ((right & counts).double() * often).cumsum(1)
    tried = (counts.double() * often).cumsum(1)
    precision = hits / tried.clamp_min(1)
    recall = hits / sought
    envelope = precision.flip(1).cummax(1).values.flip(1) if precision.shape[1] else precision
    place = torch.searchsorted(recall.contiguous(), RECALLS.expand(len(recall), -1).contiguous())
    padded = torch.cat((envelope, torch.zeros(len(recall), 1, dtype=torch.float64)), 1)  # a recall that is never reached
    return padded.gather(1, place).mean(1)


def _matched(found: Found) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(10, d) each, some images at a time: whether a detection is right at each overlap, and whether it counts."""
    detections = [[*each.split(found.counts.tolist())] for each in (found.boxes.double(), found.classes)]
    truths = [[*each.split(found.true_counts.tolist())] for each in (found.true_boxes.double(), found.true_classes, found.true_ignored)]
    none = torch.zeros(len(OVERLAPS), 0, dtype=torch.bool)
    result = [(none, none)]
    for first in range(0, len(found.counts), _IMAGES):
        some = slice(first, first + _IMAGES)
        boxes, classes = (pad_sequence(each[some], True, fill) for each, fill in zip(detections, (0, -1), strict=True))
        true = [pad_sequence(each[some], True, fill) for each, fill in zip(truths, (0, -2, 0), strict=True)]
        right, counts = _match(boxes, classes, *true)
        real = torch.arange(boxes.shape[1]) < found.counts[some, None]
        result.append((right[:, real], counts[:, real]))
    return result


def _match(
    boxes: torch.Tensor, classes: torch.Tensor, true_boxes: torch.Tensor, true_classes: torch.Tensor, is_ignored: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of images (I) with d detections, best first, and g boxes: (10, I, d) each.

    Each detection takes the box of its class that it overlaps most and that no better one has; one that is ignored only where there is no
    other, over its own area alone, and that may be taken many times.
    """
    images, d, g = (*boxes.shape[:2], true_boxes.shape[1])
    right = torch.zeros(len(OVERLAPS), images, d, dtype=torch.bool)
    counts = torch.ones_like(right)
    if not g:
        return right, counts
    overlap = overlaps(boxes, true_boxes)
    alone = shared(boxes, true_boxes) / area(boxes)[..., None].clamp_min(1e-300)
    overlap = torch.where(is_ignored[:, None], alone, overlap)
    overlap = torch.where(classes[..., None] == true_classes[:, None], overlap, -1.0)
    is_taken = torch.zeros(len(OVERLAPS), images, g, dtype=torch.bool)
    rank, least = torch.arange(g), OVERLAPS[:, None, None].clamp_max(1 - 1e-10)
    for place in range(d):
        here = overlap[:, place].expand(len(OVERLAPS), -1, -1)
        fits = here >= least
        free = fits & ~is_ignored & ~is_taken
        best = torch.where(free, here, -1.0)
        # Of equals the last, as there.
        which = torch.where(free & (best == best.amax(-1, keepdim=True)), rank, -1).amax(-1, keepdim=True)
        right[:, :, place] = hit = which[..., 0] >= 0
        counts[:, :, place] = hit | ~(fits & is_ignored).any(-1)
        is_taken |= rank == which
    return right, counts
