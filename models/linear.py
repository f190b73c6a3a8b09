"""One matrix and a shift: linear regression. Without a block and in one piece: there is nothing in it to split."""

from __future__ import annotations

import torch
from torch import nn


class Linear(nn.Module):
    """(N, in_features) to (N, out_features)."""

    def __init__(self, in_features: int = 10, out_features: int = 1) -> None:
        super().__init__()
        self.head = nn.Linear(in_features, out_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)
