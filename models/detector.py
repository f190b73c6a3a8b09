"""FCOS, a detector without anchors (Tian et al., 2019, https://arxiv.org/abs/1904.01355): each point of a feature pyramid says which class
is there, how far the edges of its box are, and whether it is in its middle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from models.fpn import STRIDE, Pyramid

BLOCKS = ("BasicBlock", "Bottleneck")
PRIOR = 0.01
"""Of a class at a point, before anything is learnt: at most of them there is none (https://arxiv.org/abs/1708.02002, section 4.1)."""


class Detector(nn.Module):
    """Images (N, 3, H, W) to a dict of what all points of all levels say, the finest level first, each row by row:

    scores (N, P, num_classes), logits; distances (N, P, 4) from a point to the left, upper, right and lower edge, in strides, more than 0;
    centres (N, P), logits; points (P, 2), where they are, x and y in pixels; strides (P,), pixels between neighbours.
    """

    def __init__(
        self,
        num_classes: int = 3,
        depths: Sequence[int] = (2, 2, 2, 2),
        width: int = 64,
        bottleneck: bool = False,
        groups: int = 8,
        channels: int = 128,
        head_depth: int = 2,
        more_levels: int = 0,
    ) -> None:
        """`depths`, `width`, `bottleneck`: of the ResNet; (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) with bottlenecks ResNet-50. `groups`: of
        GroupNorm, in the ResNet and in the heads; 0: BatchNorm in the ResNet. `channels` of the pyramid and the heads. `head_depth`: their
        convolutions. `more_levels`: maps of 1/64 and 1/128, for boxes of more than 256 pixels. Raises ValueError naming the key."""
        super().__init__()
        for key, value, least in (("num_classes", num_classes, 1), ("head_depth", head_depth, 0), ("more_levels", more_levels, 0)):
            if value < least:
                raise ValueError(f"model.{key}={value}: not possible; type a whole number from {least}")
        own = groups or 8
        if channels < 1 or channels % own:
            raise ValueError(f"model.channels={channels}: each of {own} groups has an even share of them; type a multiple of {own}")
        self.pyramid = Pyramid(depths, width, bottleneck, groups, channels, more_levels)
        self.classes, self.boxes = _tower(channels, head_depth, own), _tower(channels, head_depth, own)
        self.scores = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.distances = nn.Conv2d(channels, 4, 3, padding=1)
        self.centres = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(3 + more_levels))
        for conv in (self.scores, self.distances, self.centres):
            _initialise(conv)
        assert self.scores.bias is not None
        nn.init.constant_(self.scores.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, list[torch.Tensor]] = {"scores": [], "distances": [], "centres": [], "points": [], "strides": []}
        for level, (features, scale) in enumerate(zip(self.pyramid(images), self.scales.unbind(), strict=True)):
            of_class, of_box = self.classes(features), self.boxes(features)
            found["scores"].append(_rows(self.scores(of_class)))
            # softplus is more than 0 as exp is, and does not run away in half precision; 4 strides to an edge is what a level has at most
            found["distances"].append(F.softplus(_rows(self.distances(of_box)) * scale + 1.0))
            found["centres"].append(_rows(self.centres(of_box))[..., 0])
            points = _points(features.shape[-2], features.shape[-1], STRIDE * 2**level, images.device)
            found["points"].append(points)
            found["strides"].append(torch.full_like(points[:, 0], STRIDE * 2**level))
        return {name: torch.cat(each, 0 if name in ("points", "strides") else 1) for name, each in found.items()}


def _tower(channels: int, depth: int, groups: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        _initialise(conv)
        layers += [conv, nn.GroupNorm(groups, channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _initialise(conv: nn.Conv2d) -> None:
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _rows(features: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, H * W, C)."""
    return features.flatten(2).transpose(1, 2)


def _points(height: int, width: int, stride: int, device: torch.device) -> torch.Tensor:
    """(height * width, 2): the middles of a map's cells, x and y."""
    y, x = ((torch.arange(side, device=device, dtype=torch.float32) + 0.5) * stride for side in (height, width))
    return torch.stack((x.repeat(height), y.repeat_interleave(width)), 1)
