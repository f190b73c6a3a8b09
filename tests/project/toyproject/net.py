"""A convolution, a norm with statistics and a dropout: one of each thing that has a state to lose."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 8, dropout: float = 0.2, num_classes: int = 4, fill: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(width * 16, num_classes))
        self.register_buffer("seen", torch.zeros(()), persistent=False)  # a buffer no state_dict has
        self.filler = nn.Parameter(torch.zeros(fill))  # makes a checkpoint of any size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += x.shape[0]
        return self.head(self.body(x)) + self.filler.sum() + 1e-6 * self.seen


class Linear(nn.Module):
    """No norm, no memory: what it computes for a sample does not depend on the rest of the batch."""

    def __init__(self, num_classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(3 * 8 * 8, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Frozen(Net):
    """A fine-tuned model: its constructor freezes the norm, statistics and all, and nothing else may thaw it."""

    def __init__(self, width: int = 8, dropout: float = 0.2, num_classes: int = 4, fill: int = 0) -> None:
        super().__init__(width, dropout, num_classes, fill)
        self.body[1].eval().requires_grad_(False)


class Line(nn.Sequential):
    """Vectors of four numbers to four."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 4))


class Branching(Net):
    """Looks at its numbers to decide what to do, which no trace can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 0:
            x = -x
        return super().forward(x)
