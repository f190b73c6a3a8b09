"""Fully connected layers with ReLU between them (Rosenblatt, 1958, has the one without)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

BLOCKS = ("Hidden",)
STAGES = ("flatten", "blocks.*", "head")


class Hidden(nn.Module):
    def __init__(self, numbers_in: int, numbers_out: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(numbers_in, numbers_out), nn.ReLU(inplace=True), nn.Dropout(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class MLP(nn.Module):
    """(N, in_features), or images of as many numbers (N, C, H, W), to scores (N, num_classes).

    widths: of the hidden layers, one after the other; none makes it linear.
    """

    def __init__(self, in_features: int = 64, widths: Sequence[int] = (64, 32), num_classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        pairs = zip((in_features, *widths), widths, strict=False)
        self.flatten = nn.Flatten()
        self.blocks = nn.Sequential(*(Hidden(before, width, dropout) for before, width in pairs))
        self.head = nn.Linear((in_features, *widths)[-1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.flatten(x)))


def regressor(in_features: int = 10, widths: Sequence[int] = (64, 32), out_features: int = 1, dropout: float = 0.0) -> MLP:
    """The same, to numbers (N, out_features)."""
    return MLP(in_features, widths, out_features, dropout)
