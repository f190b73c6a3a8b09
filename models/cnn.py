"""A small convolutional network for small images: digits of 8x8 and 28x28."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

BLOCKS = ("Stage",)
TAKES = ("images",)
STAGES = ("stages.*", "head")


class Stage(nn.Module):
    """A 3x3 convolution that halves the resolution by max-pooling; the norm stands behind it, a quarter of the elements to normalise."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.layers = nn.Sequential(conv, nn.MaxPool2d(2), nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class CNN(nn.Module):
    """Images (N, channels, H, W) to scores (N, num_classes).

    widths: channels of each stage; H and W are at least 2 to the power of how many there are.
    """

    def __init__(self, channels: int = 1, widths: Sequence[int] = (32, 64, 128), num_classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        if not widths:
            raise ValueError("model.widths=[]: there is no stage; type one width at least, for example model.widths=[32]")
        pairs = zip((channels, *widths), widths, strict=False)
        self.stages = nn.Sequential(*(Stage(before, width) for before, width in pairs))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(x))
