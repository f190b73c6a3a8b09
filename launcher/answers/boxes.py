"""Boxes as tensors (…, 4): left, top, right, bottom."""

from __future__ import annotations

import torch


def area(boxes: torch.Tensor) -> torch.Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def shared(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The area that two have in common, of boxes (…, A, 4) and (…, B, 4): (…, A, B)."""
    low = torch.maximum(one[..., :, None, :2], other[..., None, :, :2])
    high = torch.minimum(one[..., :, None, 2:], other[..., None, :, 2:])
    return (high - low).clamp_min(0).prod(-1)


def overlaps(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of each pair the shared area over that of both together (IoU): (…, A, 4) and (…, B, 4) to (…, A, B). 0 where neither has any."""
    common = shared(one, other)
    both = area(one)[..., :, None] + area(other)[..., None, :] - common
    return common / both.clamp_min(torch.finfo(both.dtype).tiny)


def giou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Generalised IoU of boxes pair by pair, (…, 4) each: -1 to 1 (Rezatofighi et al., 2019, https://arxiv.org/abs/1902.09630, algorithm
    1). Where two have nothing in common it says how far they are apart, by the share of the smallest box around both that neither fills."""
    low, high = torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:])
    common = (high - low).clamp_min(0).prod(-1)
    both = area(one) + area(other) - common
    around = (torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])).prod(-1)
    least = torch.finfo(both.dtype).tiny
    return common / both.clamp_min(least) - (around - both) / around.clamp_min(least)


def survivors(boxes: torch.Tensor, classes: torch.Tensor, most_overlap: float) -> torch.Tensor:
    """Non-maximum suppression of boxes (N, k, 4) that come best first, with their classes (N, k): which stay, (N, k) bool. One goes where
    a better one of its class that stays overlaps it by more than `most_overlap`.

    All at once instead of one after the other: "stays unless a better one that stays overlaps it" is asked of all until no answer changes.
    Of the first k rounds each settles one more box at least, so that the end is the greedy one; it is usually there after a handful.
    """
    k = boxes.shape[1]
    better = torch.ones(k, k, dtype=torch.bool, device=boxes.device).triu(1)  # row before column
    beats = (overlaps(boxes, boxes) > most_overlap) & (classes[:, :, None] == classes[:, None, :]) & better
    stays = torch.ones_like(classes, dtype=torch.bool)
    while True:
        now = ~(beats & stays[:, :, None]).any(1)
        if torch.equal(now, stays):
            return stays
        stays = now


def around(distances: torch.Tensor) -> torch.Tensor:
    """Boxes (…, 4) around the origin: of two that are seen from one point, the overlap is that of the distances."""
    return torch.cat((-distances[..., :2], distances[..., 2:]), -1)
