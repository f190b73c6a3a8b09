"""A ResNet-9 in the manner of David Page's DAWNBench entry (https://github.com/davidcpage/cifar10-fast, 2018).

Made for 32x32 images and little time: a stem that looks at patches at half resolution, then convolutions that shrink by
max-pooling, with residuals at the low resolutions only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

BLOCKS = ("Residual",)
TAKES = ("images",)


def conv_norm_relu(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, pool: bool = False) -> nn.Sequential:
    """Pooling stands before the norm: a quarter of the elements to normalise."""
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=(kernel - stride + 1) // 2, bias=False)
    shrink = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(conv, *shrink, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """x + two convolutions of x; the last norm starts at zero, so the block starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.layers = nn.Sequential(conv_norm_relu(channels, channels), nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.layers(x))


class ResNet9(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes).

    widths: channels of each stage; every stage but the first halves the resolution. residuals: residual blocks in each stage.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256),
        residuals: Sequence[int] = (0, 1, 1),
        patch: int = 4,
        num_classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(widths) != len(residuals):
            raise ValueError(f"model.residuals={list(residuals)} has {len(residuals)} stages and model.widths {len(widths)}; type as many")
        layers: list[nn.Module] = [conv_norm_relu(3, widths[0], kernel=patch, stride=max(1, patch // 2))]
        for stage, (width, blocks) in enumerate(zip(widths, residuals, strict=True)):
            if stage:
                layers.append(conv_norm_relu(widths[stage - 1], width, pool=True))
            layers += [Residual(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x))
