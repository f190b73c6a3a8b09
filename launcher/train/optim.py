"""Optimizers, built over a model: no weight decay on biases, norms and other vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and filters with decay, vectors without (Goyal et al., 2017, https://arxiv.org/abs/1706.02677, section 5.3)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def sgd(
    model: nn.Module, lr: float = 0.1, momentum: float = 0.9, nesterov: bool = True, weight_decay: float = 5e-4
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum, one fused kernel per step."""
    groups = parameter_groups(model, weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, fused=True)


def adamw(
    model: nn.Module,
    lr: float = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.05,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2017, https://arxiv.org/abs/1711.05101), one fused kernel per step."""
    first, second = betas
    return torch.optim.AdamW(parameter_groups(model, weight_decay), lr=lr, betas=(first, second), eps=eps, fused=True)
