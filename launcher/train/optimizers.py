"""Optimizers over the parameters of one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from launcher.config import targets
from launcher.train.optim import start_momentum


class Optimizers:
    def __init__(self, each: list[torch.optim.Optimizer]) -> None:
        self.each = each
        self.param_groups = [group for optimizer in each for group in optimizer.param_groups]
        self.parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self._base = [group["lr"] for group in self.param_groups]
        self._steps = [type(o).step.__wrapped__.__get__(o) for o in each]
        self._rates = list(zip(self.param_groups, self._base, strict=True))

    @classmethod
    def over(cls, model: nn.Module, node: Mapping[str, Any], device: torch.device) -> Optimizers:
        if node["_target_"].startswith("torch.optim."):
            optimizer = targets.build(node, params=[parameter for parameter in model.parameters() if parameter.requires_grad])
        else:
            optimizer = targets.build(node, model=model)
        start_momentum(optimizer)
        return cls([optimizer])

    @property
    def lr(self) -> float:
        return self.param_groups[0]["lr"]

    def set_lr(self, factor: float) -> None:
        for group, base in self._rates:
            group["lr"] = base * factor

    def unscale(self, scaler: Any) -> None:
        for optimizer in self.each:
            scaler.unscale_(optimizer)

    def step(self, scaler: Any) -> None:
        if scaler is None:
            for step in self._steps:
                step()
            return
        for optimizer in self.each:
            scaler.step(optimizer)
        scaler.update()

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
