"""Optimizers, built over a model: no weight decay on biases, norms and other vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from launcher.errors import ConfigError


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and filters with decay, vectors without (Goyal et al., 2017, https://arxiv.org/abs/1706.02677, section 5.3)."""
    return _by_decay([parameter for parameter in model.parameters() if parameter.requires_grad], weight_decay)


def _by_decay(trained: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
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
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW beside it for all else: vectors, filters, embeddings, and what `aside` names, a module or a
    parameter by its dotted name, as one does with the head (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/).

    Raises ConfigError where this torch has no Muon, the model no hidden matrix, or `aside` names nothing of it.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(f"optim=muon: torch {torch.__version__} has no Muon, 2.9 has; update torch, or type optim=adamw")
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)]
    looked_up = {id(parameter) for module in embeddings for parameter in module.parameters()}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for text in aside:
        if not any(f"{name}.".startswith(f"{text}.") for name, _ in model.named_parameters()):
            raise ConfigError(f"optim.aside: the model has no {text}; its parameters are {', '.join(trained)}")
    hidden = [
        parameter
        for name, parameter in trained.items()
        if parameter.ndim == 2 and id(parameter) not in looked_up and not any(f"{name}.".startswith(f"{text}.") for text in aside)
    ]
    if not hidden:
        raise ConfigError("optim=muon: the model has no hidden matrix, which is all that Muon trains; type optim=adamw")
    made: list[torch.optim.Optimizer] = [
        torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps)
    ]
    ours = {id(parameter) for parameter in hidden}
    if rest := [parameter for parameter in trained.values() if id(parameter) not in ours]:
        first, second = betas
        made.append(torch.optim.AdamW(_by_decay(rest, weight_decay), lr=adamw_lr, betas=(first, second), eps=eps, fused=True))
    return made


def lbfgs(
    model: nn.Module,
    lr: float = 1.0,
    max_iter: int = 20,
    history_size: int = 10,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
    line_search_fn: str | None = "strong_wolfe",
) -> torch.optim.Optimizer:
    """L-BFGS (Liu and Nocedal, 1989, https://doi.org/10.1007/BF01589116): up to `max_iter` iterations and 5/4 as many evaluations of one
    batch in each update, so for models whose batch is the data set."""
    return torch.optim.LBFGS(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=lr,
        max_iter=max_iter,
        tolerance_grad=tolerance_grad,
        tolerance_change=tolerance_change,
        history_size=history_size,
        line_search_fn=line_search_fn,
    )
