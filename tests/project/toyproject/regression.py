"""A task: numbers for each sample, where they are known. How many are differs from batch to batch, so the weight is a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from launcher.train.tasks.task import Model, Quiet, Step, Sums


class Regression(Quiet):
    """Mean squared error over the known targets."""

    def step(self, model: Model, batch: Any) -> Step:
        error, known = _errors(model, batch)
        return Step(error.square().sum(), known.sum(), (error.detach().abs().sum(),))

    def train_metrics(self, loss: float, weight: float, statistics: Sequence[float]) -> dict[str, float]:
        return {"loss": loss / weight, "mae": statistics[0] / weight}

    def metrics(self) -> Sums:
        return Sums(_sums, lambda total: {"loss": float(total[0] / total[1]), "samples": int(total[2])})


def _errors(model: Model, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, numbers) each: by how much the model is off, 0 where nobody knows; whether somebody does."""
    x, y = batch
    known = y.isfinite()
    return torch.where(known, model(x) - y.nan_to_num(), 0.0), known


def _sums(model: Model, batch: Any) -> torch.Tensor:
    error, known = _errors(model, batch)
    return torch.stack([error.square().sum(), known.sum(), torch.tensor(len(known))]).double()
