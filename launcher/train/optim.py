"""Optimizers, built over a model: no weight decay on biases, norms and other vectors, and `groups` for what is to be otherwise.

`groups`: pattern of parameter names -> settings (named_groups.py); a setting is a keyword of the function that its optimizer has for each
group. Each function raises ConfigError for a pattern that no parameter falls to, and for a setting that is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from launcher.errors import ConfigError
from launcher.train.layerwise import LAMB, LARS
from launcher.train.lion import Lion
from launcher.train.named_groups import Groups, Named

NONE: Groups = MappingProxyType({})


def sgd(
    model: nn.Module,
    lr: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 5e-4,
    groups: Groups = NONE,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum, one fused kernel per step."""
    settings: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    made = Named(model, groups).split("SGD", settings)
    for group in made:
        group["nesterov"] = group.get("nesterov", nesterov) and group.get("momentum", momentum) > 0
    return torch.optim.SGD(made, lr=lr, momentum=momentum, fused=True)


def adam(
    model: nn.Module,
    lr: float = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    groups: Groups = NONE,
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba, 2014, https://arxiv.org/abs/1412.6980), one fused kernel per step. Its decay is added to the gradient, and
    divided like it; that of AdamW is not."""
    settings: dict[str, Any] = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
    return torch.optim.Adam(Named(model, groups).split("Adam", settings), **settings, fused=True)


def adamw(
    model: nn.Module,
    lr: float = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.05,
    groups: Groups = NONE,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, 2017, https://arxiv.org/abs/1711.05101), one fused kernel per step."""
    return _adamw(Named(model, groups), None, lr, betas, eps, weight_decay)


def _adamw(
    named: Named, names: Iterable[str] | None, lr: float, betas: Sequence[float], eps: float, weight_decay: float
) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
    return torch.optim.AdamW(named.split("AdamW", settings, names), **settings, fused=True)


def adafactor(
    model: nn.Module,
    lr: float = 1e-2,
    beta2_decay: float = -0.8,
    eps: Sequence[float | None] = (None, 1e-3),
    d: float = 1.0,
    weight_decay: float = 0.0,
    groups: Groups = NONE,
) -> torch.optim.Optimizer:
    """Adafactor (Shazeer and Stern, 2018, https://arxiv.org/abs/1804.04235): of the squared gradients of a matrix it remembers one number
    for each row and each column, which is next to no memory. `lr` is a share of a parameter's own size. torch's reads two numbers of each
    parameter back in each step (torch 2.13), for which a GPU waits."""
    settings: dict[str, Any] = {"lr": lr, "beta2_decay": beta2_decay, "eps": tuple(eps), "d": d, "weight_decay": weight_decay}
    return torch.optim.Adafactor(Named(model, groups).split("Adafactor", settings), **settings)


def lion(
    model: nn.Module,
    lr: float = 1e-4,
    betas: Sequence[float] = (0.9, 0.99),
    weight_decay: float = 0.5,
    groups: Groups = NONE,
) -> torch.optim.Optimizer:
    """Lion (Chen et al., 2023, https://arxiv.org/abs/2302.06675): a rate of a third to a tenth of AdamW's and three to ten times its decay,
    by section 5 there."""
    settings: dict[str, Any] = {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay}
    return Lion(Named(model, groups).split("Lion", settings), **settings)


def lars(
    model: nn.Module,
    lr: float = 1.0,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    eta: float = 1e-3,
    groups: Groups = NONE,
) -> torch.optim.Optimizer:
    """LARS (You, Gitman and Ginsburg, 2017, https://arxiv.org/abs/1708.03888): momentum, by which a matrix moves a share of its own norm,
    `eta` times the rate, however long its gradient is. Biases and norms have the rate itself, as in SGD: `groups` for another."""
    settings: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta}
    return LARS(Named(model, groups).split("LARS", settings), **settings)


def lamb(
    model: nn.Module,
    lr: float = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    groups: Groups = NONE,
) -> torch.optim.Optimizer:
    """LAMB (You et al., 2020, https://arxiv.org/abs/1904.00962): AdamW, by which a matrix moves a share of its own norm, the rate."""
    settings: dict[str, Any] = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
    return LAMB(Named(model, groups).split("LAMB", settings), **settings)


def muon(
    model: nn.Module,
    lr: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    ns_steps: int = 5,
    weight_decay: float = 0.01,
    adamw_lr: float = 3e-4,
    betas: Sequence[float] = (0.9, 0.95),
    eps: float = 1e-8,
    aside: Sequence[str] = (),
    groups: Groups = NONE,
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW beside it for all else: vectors, filters, embeddings, and what `aside` names, a module or a
    parameter by its dotted name, as one does with the head (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/).

    Raises ConfigError where this torch has no Muon, the model no hidden matrix, or `aside` names nothing of it.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(f"optim=muon: torch {torch.__version__} has no Muon, 2.9 has; update torch, or type optim=adamw")
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    looked_up = {id(parameter) for module in embeddings for parameter in module.parameters()}
    named = Named(model, groups)
    for text in aside:
        if not any(f"{name}.".startswith(f"{text}.") for name, _ in model.named_parameters()):
            raise ConfigError(f"optim.aside: the model has no {text}; its parameters are {', '.join(named.trained)}")
    hidden = [
        name
        for name, parameter in named.trained.items()
        if parameter.ndim == 2 and id(parameter) not in looked_up and not any(f"{name}.".startswith(f"{text}.") for text in aside)
    ]
    if not hidden:
        raise ConfigError("optim=muon: the model has no hidden matrix, which is all that Muon trains; type optim=adamw")
    settings: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "weight_decay": weight_decay}
    made: list[torch.optim.Optimizer] = [torch.optim.Muon(named.split("Muon", settings, hidden), **settings)]
    if rest := [name for name in named.trained if name not in hidden]:
        made.append(_adamw(named, rest, adamw_lr, betas, eps, weight_decay))
    return made


def lbfgs(
    model: nn.Module,
    lr: float = 1.0,
    max_iter: int = 20,
    history_size: int = 10,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
    line_search_fn: str | None = "strong_wolfe",
    groups: Groups = NONE,
) -> torch.optim.Optimizer:
    """L-BFGS (Liu and Nocedal, 1989, https://doi.org/10.1007/BF01589116): up to `max_iter` iterations and 5/4 as many evaluations of one
    batch in each update, so for models whose batch is the data set. It has one group: raises ConfigError for any `groups`."""
    if groups:
        raise ConfigError(f"optim.groups: {next(iter(groups))}: LBFGS has the same for all parameters; leave it out, or type optim=adamw")
    return torch.optim.LBFGS(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=lr,
        max_iter=max_iter,
        tolerance_grad=tolerance_grad,
        tolerance_change=tolerance_change,
        history_size=history_size,
        line_search_fn=line_search_fn,
    )
