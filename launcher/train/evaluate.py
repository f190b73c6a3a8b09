"""Evaluation over all processes, every sample counted once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from launcher.train.world.ranks import Ranks


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules evaluate within, and each is in its own mode again after: `model.train()` would also train what a constructor froze.

    A module that needs another mode is told by its own `train`, for some do more there than set a flag (merge adapters, keep a norm
    frozen); parents come before children, so that what a parent's call changed below it is put right by the child's.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            if module.training != mode:
                module.train(mode)
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def evaluate(model: nn.Module, task: Any, loader: Any, ranks: Ranks) -> torch.Tensor:
    """The task's totals over one split, summed over the ranks: float64, on the CPU, the same on every rank.

    `model` is the inner module: a rank with fewer batches than another must not wait for it. Raises RuntimeError when the samples
    counted are not the samples there are.
    """
    totals: torch.Tensor | None = None
    with evaluating(model):
        for batch in loader:
            part = task.eval_totals(model(task.inputs(batch)), batch)
            totals = part if totals is None else totals + part
    counted = _sum(totals, ranks)
    samples = task.eval_metrics(counted)["samples"]
    if samples != loader.samples:
        raise RuntimeError(f"evaluation counted {samples} samples of {loader.samples}")
    return counted


def _sum(totals: torch.Tensor | None, ranks: Ranks) -> torch.Tensor:
    """A rank may have had no batch at all: its zeros take the length the others have."""
    here = None if totals is None else totals.cpu()
    length = max(ranks.gather(0 if here is None else here.numel()))
    return ranks.sum(torch.zeros(length, dtype=torch.float64) if here is None else here)
