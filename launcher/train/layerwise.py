"""LARS and LAMB, for batches so large that one rate is too much for some layers: each matrix moves by a share of its own norm.

What is no matrix or filter, biases and norms, is updated without that share, as the groups have no decay for it (named_groups.py). Of a
parameter that lies in pieces the norm is that of the whole.
"""

# pyright: reportPrivateImportUsage=false
# torch's kernels over lists have no other name.

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.optim.optimizer import ParamsT

from launcher.train.device import widest
from launcher.train.local import local, summed


class Layerwise(torch.optim.Optimizer):
    """What both are around."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of each parameter that has a gradient; what `closure` returned, where there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for is_matrix in (True, False):
                parameters = [each for each in group["params"] if each.grad is not None and (each.ndim > 1) == is_matrix]
                if parameters:  # torch's kernels over lists refuse an empty one
                    self._update(group, parameters, is_matrix)
        return loss

    @abstractmethod
    def _update(self, group: dict[str, Any], parameters: list[torch.Tensor], is_matrix: bool) -> None:
        """`is_matrix`: whether each moves by a share of its norm."""

    def _kept(self, parameters: list[torch.Tensor], name: str) -> list[torch.Tensor]:
        """This process's pieces of what is remembered of each, zeros at first."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [local(self.state[parameter][name]) for parameter in parameters]


class LARS(Layerwise):
    """You, Gitman and Ginsburg, 2017, https://arxiv.org/abs/1708.03888, Algorithm 1: a matrix w with gradient g has the rate
    lr eta |w| / (|g| + weight_decay |w|), and its momentum adds up what it has been moved by."""

    def __init__(self, params: ParamsT, lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 5e-4, eta: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta})

    def _update(self, group: dict[str, Any], parameters: list[torch.Tensor], is_matrix: bool) -> None:
        here, momenta = [*map(local, parameters)], self._kept(parameters, "momentum_buffer")
        gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        decay, lr = group["weight_decay"], group["lr"]
        moves = torch._foreach_add(gradients, here, alpha=decay)
        if is_matrix:
            size, slope = norms(parameters, here), norms(parameters, gradients)
            share = group["eta"] * size / (slope + decay * size)
            torch._foreach_mul_(moves, [*torch.where((size > 0) & (slope > 0), share, 1.0).unbind()])
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, moves, alpha=lr)
        torch._foreach_sub_(here, momenta)


class LAMB(Layerwise):
    """You et al., 2020, https://arxiv.org/abs/1904.00962, Algorithm 2, phi the identity: the update r of AdamW, decay and all, of a matrix
    w times |w| / |r|."""

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.01
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def _update(self, group: dict[str, Any], parameters: list[torch.Tensor], is_matrix: bool) -> None:
        here, (beta1, beta2) = [*map(local, parameters)], group["betas"]
        gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        averages, squares = self._kept(parameters, "exp_avg"), self._kept(parameters, "exp_avg_sq")
        torch._foreach_lerp_(averages, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        steps = [self._counted(parameter) for parameter in parameters]
        moves = torch._foreach_div(averages, [1 - beta1**step for step in steps])
        roots = torch._foreach_sqrt(torch._foreach_div(squares, [1 - beta2**step for step in steps]))
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_div_(moves, roots)
        if group["weight_decay"]:
            torch._foreach_add_(moves, here, alpha=group["weight_decay"])
        if is_matrix:
            size, length = norms(parameters, here), norms(parameters, moves)
            share = torch.where((size > 0) & (length > 0), size / length, 1.0)
            torch._foreach_mul_(moves, [*share.unbind()])
        torch._foreach_add_(here, moves, alpha=-group["lr"])

    def _counted(self, parameter: torch.Tensor) -> float:
        """Updates of it, with this one. The count lies with the host, where reading it waits for nothing."""
        state = self.state[parameter]
        state["step"] = state["step"] + 1 if "step" in state else torch.ones(())
        return state["step"].item()


def norms(parameters: Sequence[torch.Tensor], pieces: Sequence[torch.Tensor]) -> torch.Tensor:
    """(parameters,): of each the L2 norm of the whole tensor whose piece here lies as the parameter's does, in `pieces`. One message for
    each way in which parameters are cut, however many they are."""
    found = torch.stack(torch._foreach_norm([*pieces]))
    cut: dict[tuple[dist.ProcessGroup, ...], list[int]] = defaultdict(list)
    for place, parameter in enumerate(parameters):
        if groups := _cut_over(parameter):
            cut[groups].append(place)
    for groups, places in cut.items():
        squares = found[places].to(widest(found.device)).square()
        for group in groups:
            squares = summed(squares, group)
        found[places] = squares.sqrt().to(found)
    return found


def _cut_over(parameter: Any) -> tuple[dist.ProcessGroup, ...]:
    """Over whom a parameter is cut, a group for each dimension of the mesh that has pieces of it."""
    ways = enumerate(getattr(parameter, "placements", ()))
    return tuple(parameter.device_mesh.get_group(dimension) for dimension, way in ways if not way.is_replicate())
