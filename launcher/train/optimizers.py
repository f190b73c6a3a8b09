"""The optimizers of a run: one, or several that share the parameters out among themselves."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.optim.optimizer as torch_optimizer
from torch import nn

from launcher.config import targets
from launcher.errors import ConfigError
from launcher.train.device import Event, has_cublas


def build(node: Mapping[str, Any], model: nn.Module) -> Optimizers:
    """What `optim` says, over a model that lies where it is trained. Raises ConfigError as `targets.build` and `Optimizers`."""
    if node["_target_"].startswith("torch.optim."):
        node = {key: value for key, value in node.items() if key != "groups" or value}  # of our yamls; it knows none by patterns
        made = targets.build(node, params=[parameter for parameter in model.parameters() if parameter.requires_grad])
    else:
        made = targets.build(node, model=model)
    return Optimizers(made if isinstance(made, list | tuple) else [made], model)


class Optimizers:
    """`each` one steps its own parameters. What the loop calls once a step is bound when this is made: torch's `zero_grad` walks the groups
    anew each time, and its wrapper of `step`, for hooks and profilers, costs more than a small fused update itself (torch 2.13)."""

    def __init__(self, each: Sequence[torch.optim.Optimizer], model: nn.Module) -> None:
        """Raises ConfigError for what is no optimizer, and where a trained parameter of `model` is in none of them or in two."""
        for one in each:
            if not isinstance(one, torch.optim.Optimizer):  # pyright: ignore[reportUnnecessaryIsInstance]  # a user's target made it
                raise ConfigError(f"optim gives a {type(one).__name__}; it has to give an optimizer of torch's kind, or a list of them")
        self.each = list(each)
        self.names = _names(self.each, model)
        """Of every parameter that is in one, by `id`."""
        self.parameters: list[nn.Parameter] = [parameter for one in each for group in one.param_groups for parameter in group["params"]]
        self.needs_closure = any(map(_needs_closure, each))
        """Whether an update evaluates the loss several times, as LBFGS does."""
        if self.needs_closure:
            _check_closure(self.each)
        for one in each:
            _without_fused_sgd(one)
            _start_momentum(one)
        self._steps = [_bound_step(one) for one in each]
        self._base_lr = [float(group["lr"]) for one in each for group in one.param_groups]
        self._device_lr: dict[tuple[torch.device, float], torch.Tensor] = {}
        """Filled in place, so that a CUDA graph of the step finds each rate where it was when it was captured."""
        self._factor = 1.0
        self._copies: list[Event] = []
        self.is_staged = False
        """Whether other ranks have other parameters, so that one gradient may overflow and this rank's do not. (Of pieces of one parameter
        torch's scaler asks all who have one.)"""
        self._is_unscaled = False
        self.bind()

    def bind(self) -> None:
        """Take hold of the groups: torch makes new ones where it loads a state."""
        self.param_groups: list[dict[str, Any]] = [group for one in self.each for group in one.param_groups]
        self._host_lr: list[tuple[dict[str, Any], float]] = []
        for group, base in zip(self.param_groups, self._base_lr, strict=True):
            device = group["params"][0].device
            if has_cublas(device) and (group.get("fused") or group.get("capturable")):
                rate = torch.full((), base, dtype=torch.float32, device=device)
                group["lr"] = self._device_lr.setdefault((device, base), rate)
            else:
                self._host_lr.append((group, base))
        self._rates = [(rate, base) for (_, base), rate in self._device_lr.items()]
        self.set_lr(self._factor)

    @property
    def lr(self) -> float:
        """Of the first group, as it was last set."""
        return self._base_lr[0] * self._factor

    def set_lr(self, factor: float) -> None:
        """Every group's own rate, times `factor`."""
        self._factor = factor
        for group, base in self._host_lr:
            group["lr"] = base * factor
        for rate, base in self._rates:
            rate.fill_(base * factor)

    def wait_for(self, copied: Event | None) -> None:
        """Of a copy of what an update changes: `make_way` has the next one come after it."""
        if copied is not None:
            self._copies.append(copied)

    def make_way(self) -> None:
        """Before the first thing that changes a parameter, its state or its average."""
        while self._copies:
            self._copies.pop().wait()

    def step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """One update by the gradients that are there; with a scaler each leaves out its own where one of its gradients overflows."""
        if scaler is None:
            for step in self._steps:
                step()
            return
        if self.is_staged and not self._is_unscaled:
            self.unscale(scaler)
        self._is_unscaled = False
        for one in self.each:
            scaler.step(one)
        scaler.update()

    def step_by(self, closure: Callable[[], torch.Tensor]) -> None:
        """One update, where `needs_closure`. `closure` evaluates the loss, and leaves its gradients."""
        if self.lr:  # a rate of 0, as at the end of a cosine, moves nothing, and torch's line search divides by it
            cast("Any", self.each[0]).step(closure)

    def unscale(self, scaler: torch.amp.GradScaler) -> None:
        self._is_unscaled = True
        for one in self.each:
            scaler.unscale_(one)
            for found in scaler._found_inf_per_device(one).values() if self.is_staged else ():
                dist.all_reduce(found, op=dist.ReduceOp.MAX)

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def _names(each: Sequence[torch.optim.Optimizer], model: nn.Module) -> dict[int, str]:
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    names: dict[int, str] = {}
    for parameter in (parameter for one in each for group in one.param_groups for parameter in group["params"]):
        if id(parameter) not in known:
            raise ConfigError(f"optim trains a tensor of shape {tuple(parameter.shape)} that is no parameter of the model; leave it out")
        if id(parameter) in names:
            raise ConfigError(f"optim gives {known[id(parameter)]} to two optimizers, or twice to one; give each parameter to exactly one")
        names[id(parameter)] = known[id(parameter)]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in names:
            raise ConfigError(f"optim gives {name} to no optimizer; give it to one, or freeze it: requires_grad_(False) in the model")
    return names


def _needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """By its `step`: what can do without has a default, None."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _check_closure(each: Sequence[torch.optim.Optimizer]) -> None:
    """What moves while one evaluates is not the function that another searches along; and LBFGS takes gradients as they lie in memory."""
    if len(each) > 1:
        name = next(type(one).__name__ for one in each if _needs_closure(one))
        raise ConfigError(f"optim: {name} evaluates the loss as it goes and has to train all parameters; {len(each)} optimizers cannot be")
    tensors = (parameter for group in each[0].param_groups for parameter in group["params"])
    if isinstance(each[0], torch.optim.LBFGS) and not all(tensor.is_contiguous() for tensor in tensors):
        raise ConfigError("optim: LBFGS cannot take filters that lie channels last in memory; type train.channels_last=auto")


def _bound_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """`step` itself, where nobody has hooked or replaced it."""
    step = type(optimizer).step
    hooks = (
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
    )
    if any(hooks) or "step" in vars(optimizer) or not hasattr(step, "hooked"):
        return optimizer.step
    return types.MethodType(cast("Any", step).__wrapped__, optimizer)


def _without_fused_sgd(optimizer: torch.optim.Optimizer) -> None:
    """For parameters that lie in pieces: torch 2.13 has no rule for `_fused_sgd_` of DTensors. One kernel for each operation then."""
    if isinstance(optimizer, torch.optim.SGD) and any(
        hasattr(each, "placements") for group in optimizer.param_groups for each in group["params"]
    ):
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = False, True
        optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]


def _start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give a fused SGD the momentum it begins with, zeros. torch makes it in the first step, out of memory as it is, and a first step that
    is left out because its gradient overflows, as is usual with fp16, leaves it so (torch 2.13, torch/optim/sgd.py, _fused_sgd)."""
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        if group["fused"] and group["momentum"] and not group["dampening"]:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
