"""Evaluation over all processes, every sample counted once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from launcher.train.ranks import Ranks


@torch.no_grad()
def evaluate(model: nn.Module, task: Any, loader: Any, ranks: Ranks) -> torch.Tensor:
    """The task's totals over one split, summed over the ranks: float64, on the CPU, the same on every rank.

    `model` is the inner module: a rank with fewer batches than another must not wait for it. Raises RuntimeError when the samples
    counted are not the samples there are.
    """
    was_training = model.training
    model.eval()
    totals: torch.Tensor | None = None
    for batch in loader:
        part = task.eval_totals(model(task.inputs(batch)), batch)
        totals = part if totals is None else totals + part
    model.train(was_training)
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
