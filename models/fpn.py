"""A feature pyramid on a ResNet (Lin et al., 2017, https://arxiv.org/abs/1612.03144): maps of 1/8, 1/16, 1/32, … of the resolution, all
with as many channels, each with what the coarser ones know."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from models.resnet import BasicBlock, Bottleneck, ResNet

STRIDE = 8
"""Pixels between neighbours of the finest map; each further one has twice as many."""


class Pyramid(nn.Module):
    """Images (N, 3, H, W) to maps (N, channels, H / 8, W / 8), (N, channels, H / 16, W / 16), …, sizes rounded up."""

    def __init__(self, depths: Sequence[int], width: int, bottleneck: bool, groups: int, channels: int, more: int) -> None:
        """`depths`: blocks of the ResNet's four stages, `width` channels of its first, `groups` of GroupNorm, 0 for BatchNorm. `more`: maps
        behind that of 1/32. Raises ValueError."""
        super().__init__()
        if len(depths) != 4 or min(depths) < 1:
            raise ValueError(
                f"model.depths={list(depths)}: a ResNet has four stages of a block at least; type [2, 2, 2, 2], or [3, 4, 6, 3]"
            )
        block = Bottleneck if bottleneck else BasicBlock
        whole = ResNet(block, depths, width, "imagenet", 1, 0.0, groups)
        self.stem = whole.stem
        ends = [sum(depths[: stage + 1]) for stage in range(4)]
        blocks = list(whole.stages)
        self.stages = nn.ModuleList(nn.Sequential(*blocks[end - depth : end]) for end, depth in zip(ends, depths, strict=True))
        found = [width * 2**stage * block.expansion for stage in (1, 2, 3)]
        self.lateral = nn.ModuleList(nn.Conv2d(each, channels, 1) for each in found)
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in found)
        self.more = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(more))
        for conv in (*self.lateral, *self.smooth, *self.more):
            assert isinstance(conv, nn.Conv2d)
            nn.init.kaiming_uniform_(conv.weight, a=1)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = self.stages[0](self.stem(images))
        maps: list[torch.Tensor] = []
        for stage, lateral in zip(list(self.stages)[1:], self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for finer in (1, 0):
            coarser = F.interpolate(maps[finer + 1], size=maps[finer].shape[-2:], mode="nearest")
            maps[finer] = maps[finer] + coarser
        maps = [smooth(each) for smooth, each in zip(self.smooth, maps, strict=True)]
        for conv in self.more:
            maps.append(conv(torch.relu(maps[-1])))
        return maps
