"""Lion, which torch 2.13 has not."""

# pyright: reportPrivateImportUsage=false
# torch's kernels over lists have no other name.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT


class Lion(torch.optim.Optimizer):
    """The sign of a momentum (Chen et al., 2023, https://arxiv.org/abs/2302.06675, Algorithm 2), as much memory as SGD takes.

    Every element moves by `lr`, whatever its gradient. All is done element by element, so a parameter may be a piece of one.
    """

    def __init__(self, params: ParamsT, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of each parameter that has a gradient; what `closure` returned, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not parameters:
            return  # torch's kernels over lists refuse an empty one
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        averages = [self.state[parameter]["exp_avg"] for parameter in parameters]
        (beta1, beta2), lr = group["betas"], group["lr"]
        updates = torch._foreach_mul(averages, beta1)
        torch._foreach_add_(updates, gradients, alpha=1 - beta1)
        torch._foreach_sign_(updates)
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-lr)
        torch._foreach_lerp_(averages, gradients, 1 - beta2)
