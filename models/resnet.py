"""ResNets for CIFAR and ImageNet (He et al., 2015, https://arxiv.org/abs/1512.03385).

resnet8, resnet20: three stages behind a 3x3 stem, for 32x32 images (section 4.2). resnet18, resnet50: four stages behind a 7x7
stem with max-pooling, for 224x224 (table 1); `stem="cifar"` gives them the 3x3 stem.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 0) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(groups, channels_out) if groups else nn.BatchNorm2d(channels_out))


BLOCKS = ("BasicBlock", "Bottleneck")
TAKES = ("images",)
STAGES = ("stem", "stages.*", "head")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int, groups: int = 0) -> None:
        super().__init__()
        first, second = conv_norm(channels_in, width, 3, stride, groups), conv_norm(width, width, 3, groups=groups)
        self.residual = nn.Sequential(first, nn.ReLU(inplace=True), second)
        self.shortcut = _shortcut(channels_in, width, stride, groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1 down to `width`, 3x3, 1x1 up to 4 * width. The stride sits on the 3x3 (Goyal et al., 2017, section 5.1)."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int, groups: int = 0) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            conv_norm(channels_in, width, 1, groups=groups),
            nn.ReLU(inplace=True),
            conv_norm(width, width, 3, stride, groups),
            nn.ReLU(inplace=True),
            conv_norm(width, 4 * width, 1, groups=groups),
        )
        self.shortcut = _shortcut(channels_in, 4 * width, stride, groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


def _shortcut(channels_in: int, channels_out: int, stride: int, groups: int) -> nn.Module:
    """Identity where shapes allow it, else a projection (option B of the paper)."""
    same = stride == 1 and channels_in == channels_out
    return nn.Identity() if same else conv_norm(channels_in, channels_out, 1, stride, groups)


class ResNet(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes).

    depths: blocks per stage; the width doubles and the resolution halves from one stage to the next. groups: of GroupNorm (Wu and He, 2018,
    https://arxiv.org/abs/1803.08494), whose numbers do not depend on how a batch is shared out; 0: BatchNorm.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        width: int,
        stem: str,
        num_classes: int,
        dropout: float,
        groups: int = 0,
    ) -> None:
        super().__init__()
        if groups < 0 or (groups and width % groups):
            raise ValueError(
                f"model.groups={groups}: each has an even share of model.width={width}; type a divisor of it, or 0 for BatchNorm"
            )
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"model.stem={stem} cannot be; type cifar (3x3) or imagenet (7x7 and max-pooling)")
        kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
        pool = nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, 2, 1)
        self.stem = nn.Sequential(conv_norm(3, width, kernel, stride, groups), nn.ReLU(inplace=True), pool)
        blocks: list[nn.Module] = []
        channels = width
        for stage, depth in enumerate(depths):
            for index in range(depth):
                stage_width = width * 2**stage
                blocks.append(block(channels, stage_width, 2 if stage and not index else 1, groups))
                channels = stage_width * block.expansion
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes))
        _initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stages(self.stem(x)))


def _initialise(model: nn.Module) -> None:
    """Filters by He et al. (https://arxiv.org/abs/1502.01852); the last norm of each residual starts at zero (Goyal et al., 5.1)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, BasicBlock | Bottleneck):
            norm = [layer for layer in module.residual.modules() if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)][-1]
            nn.init.zeros_(norm.weight)


def resnet8(width: int = 16, num_classes: int = 10, dropout: float = 0.0, groups: int = 0) -> ResNet:
    return ResNet(BasicBlock, (1, 1, 1), width, "cifar", num_classes, dropout, groups)


def resnet20(width: int = 16, num_classes: int = 10, dropout: float = 0.0, groups: int = 0) -> ResNet:
    return ResNet(BasicBlock, (3, 3, 3), width, "cifar", num_classes, dropout, groups)


def resnet18(width: int = 64, num_classes: int = 10, dropout: float = 0.0, stem: str = "imagenet", groups: int = 0) -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2), width, stem, num_classes, dropout, groups)


def resnet50(width: int = 64, num_classes: int = 10, dropout: float = 0.0, stem: str = "imagenet", groups: int = 0) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), width, stem, num_classes, dropout, groups)
