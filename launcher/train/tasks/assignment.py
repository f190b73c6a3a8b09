"""Which box a point of a feature pyramid is to find, as FCOS has it (Tian et al., 2019, https://arxiv.org/abs/1904.01355, section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch

RADIUS = 1.5
"""Strides around a box's middle within which points are its own: centre sampling, of the paper's second version (section 4.3)."""
REACH = 8.0
"""Strides to the farthest edge of the boxes that a level is for: half of that to all of it, the finest from 0, the coarsest to any."""


class Assigned(NamedTuple):
    box: torch.Tensor
    """(N, P) int64: the box of the batch's row that each point is to find; -1: none."""
    counts: torch.Tensor
    """(N, P) bool: whether a class is asked for there. It is not within a box that is ignored."""
    distances: torch.Tensor
    """(N, P, 4) to the edges of that box, in strides; of a point without one they mean nothing."""


def assign(points: torch.Tensor, strides: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor, ignored: torch.Tensor) -> Assigned:
    """points (P, 2) and strides (P,); boxes (N, M, 4), labels (N, M) with -1 where there is none, ignored (N, M) bool.

    Of several boxes a point finds the smallest.
    """
    corners, at = boxes[:, None], points[None, :, None]
    distances = torch.cat((at - corners[..., :2], corners[..., 2:] - at), -1)  # (N, P, M, 4)
    is_inside = distances.amin(-1) > 0
    middle = (corners[..., :2] + corners[..., 2:]) / 2
    is_central = ((at - middle).abs().amax(-1) < RADIUS * strides[:, None]) & is_inside
    farthest, (least, most) = distances.amax(-1), _reach(strides)
    is_of_level = (farthest > least[:, None]) & (farthest <= most[:, None])
    is_sought = ((labels >= 0) & ~ignored)[:, None]
    size = (boxes[..., 2:] - boxes[..., :2]).prod(-1)[:, None]
    smallest, which = torch.where(is_central & is_of_level & is_sought, size, float("inf")).min(-1)
    is_positive = smallest.isfinite()
    is_within_ignored = (is_inside & ignored[:, None]).any(-1)
    chosen = distances.gather(2, which[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
    return Assigned(torch.where(is_positive, which, -1), is_positive | ~is_within_ignored, chosen / strides[:, None])


def _reach(strides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    least = torch.where(strides == strides.min(), 0.0, REACH / 2 * strides)
    return least, torch.where(strides == strides.max(), float("inf"), REACH * strides)


def centredness(distances: torch.Tensor) -> torch.Tensor:
    """How far in the middle a point is, from distances (…, 4): 1 there, 0 at an edge (equation 3)."""
    across, down = distances[..., 0::2], distances[..., 1::2]
    ratio = [each.amin(-1).clamp_min(0) / each.amax(-1).clamp_min(1e-6) for each in (across, down)]
    return (ratio[0] * ratio[1]).sqrt()
