"""Evaluation over all processes, every sample counted once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from launcher.train.record.pace import counted
from launcher.train.tasks.task import Metrics, Model, Task
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
def evaluate(
    model: nn.Module, compute: Model, task: Task, part: Any, ranks: Ranks, counts: bool = True, is_collective: bool = False, what: str = ""
) -> tuple[Metrics, dict[str, float]]:
    """The task's metrics over one split, merged over the ranks that count, and what they come to: the same on every rank.

    `compute` is what calls `model`, the inner module. `counts`: whether this rank's are taken. `is_collective`: whether a forward pass
    waits for other ranks; those with fewer batches then go over one that counts for nothing. `what`: said of how far it is. Raises
    RuntimeError when the samples counted are not the samples there are.
    """
    own, merged = task.metrics(), task.metrics()
    most = max(ranks.gather(len(part))) if is_collective else 0
    with evaluating(model):
        for batch in counted(part, len(part), what) if what else part:
            own.update(compute, batch)
        found = {name: tensor.clone() for name, tensor in own.state().items()} if counts else {}
        for _ in range(most - len(part) if is_collective else 0):
            own.update(compute, part.spare())
    for state in ranks.gather_tensors(found):
        merged.merge(state)
    values = merged.result()
    if values["samples"] != part.samples:
        raise RuntimeError(f"evaluation counted {values['samples']} samples of {part.samples}")
    return merged, values
