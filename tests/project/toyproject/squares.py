"""Vectors and the sums of their squares: the least that a data set can be. Some sums are missing, and say so as NaN."""

from __future__ import annotations

import math

import torch


class Squares:
    def __len__(self) -> int:
        return 512

    def __getitem__(self, index: int) -> tuple[torch.Tensor, float]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return x, math.nan if index % 7 == 0 else float(x.square().sum())
