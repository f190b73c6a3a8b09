"""Mixup (Zhang et al., 2017, https://arxiv.org/abs/1710.09412) and CutMix (Yun et al., 2019, https://arxiv.org/abs/1905.04899).

A sample's partner is its neighbour in the order of the epoch: 2k and 2k+1. That order is drawn anew in each epoch, so the partner is
another each time. No pair crosses a micro-batch of an even number of samples (data/sampling/updates.py): a sample has the same partner
in every world in which micro-batches are even, and a world in which they are odd is refused.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.chance import Chance
from data.augment.shape import checked_share, inside

QUANTILES = 1 << 16


class Mix:
    """Each image becomes a mixture with its partner; its label, shares of both: (b, classes) float32."""

    pairs = True

    def __init__(self, mixup: float = 0.2, cutmix: float = 0.0, share: float = 1.0) -> None:
        """`mixup`, `cutmix`: alpha of the Beta(alpha, alpha) from which each sample draws how much of it is left, 0 for none of that kind;
        with both, a coin of the sample's own says which. `share`: of the samples that are mixed. Raises ValueError naming the option."""
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if isinstance(alpha, bool) or not (alpha == 0 or 0.01 <= alpha <= 100):
                raise ValueError(f"loader.augment: {name}={alpha} is not possible; type an alpha from 0.01 to 100, or 0 for none")
        if not mixup and not cutmix:
            raise ValueError("loader.augment: mixup=0 and cutmix=0 mix nothing; type mixup=0.2, or leave Mix out")
        self._tables = quantiles(mixup), quantiles(cutmix)
        self._kinds, self._share = (bool(mixup), bool(cutmix)), checked_share(share)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
        is_mixed, coin, place = chance.uniform() < self._share, chance.below(2), chance.below(QUANTILES)
        is_cut = is_mixed & (coin == 1 if all(self._kinds) else self._kinds[1])
        kept = np.where(is_cut, self._tables[1][place], np.where(is_mixed, self._tables[0][place], 1.0))
        partners = torch.arange(len(images), device=images.device) ^ 1
        other = images.index_select(0, partners)
        mixed = images
        if self._kinds[0]:
            mine = chance.each(np.where(is_cut, 1.0, kept), images)
            mixed = torch.lerp(other, images, mine)
        if self._kinds[1]:
            box, area = boxes(kept, images.shape[2], images.shape[3], chance)
            mixed = torch.where(inside(images, box, chance) & chance.on(is_cut).view(-1, 1, 1, 1), other, mixed)
            kept = np.where(is_cut, 1 - area, kept)
        soft, weight = _soft(labels, chance.classes), chance.on(kept)[:, None]
        return mixed, soft * weight + soft.index_select(0, partners) * (1 - weight)


def boxes(kept: NDArray[np.float64], height: int, width: int, chance: Chance) -> tuple[list[NDArray[np.int64]], NDArray[np.float64]]:
    """Top, end, left, right of the box that is taken from the partner, a share of 1 - `kept` of the image around a point of it and cut at
    the edge, as the paper's code has it; and the share that it is then."""
    ends: list[NDArray[np.int64]] = []
    for side in (height, width):
        length, middle = (side * np.sqrt(1 - kept)).astype(np.int64), chance.below(side)
        ends += [np.clip(middle - length // 2, 0, side), np.clip(middle + length // 2, 0, side)]
    return ends, (ends[1] - ends[0]) * (ends[3] - ends[2]) / (height * width)


def quantiles(alpha: float) -> NDArray[np.float64]:
    """Of Beta(alpha, alpha), in the middles of equal shares of it: a word picks one. Below 1 the density has a pole at 0, which it has not
    over t = x^alpha."""
    if not alpha:
        return np.ones(QUANTILES)
    power = min(alpha, 1.0)
    t = np.linspace(0, 0.5**power, QUANTILES)
    x = t ** (1 / power)
    density = (1 - x) ** (alpha - 1) if alpha < 1 else (x * (1 - x)) ** (alpha - 1)
    mass = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    half = np.interp((np.arange(QUANTILES // 2) + 0.5) / (QUANTILES // 2) * mass[-1], mass, t) ** (1 / power)
    return np.concatenate((half, 1 - half[::-1]))


def _soft(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """(b, classes) float32; of labels that are mixed already, themselves. torch's one_hot would wait for the device."""
    if labels.ndim == 2:
        return labels
    return torch.zeros(len(labels), classes, device=labels.device).scatter_(1, labels[:, None], 1.0)
