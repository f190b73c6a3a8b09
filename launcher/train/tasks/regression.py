"""Numbers for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from launcher.train.device import wide
from launcher.train.tasks import named_metrics
from launcher.train.tasks.task import Model, Pairs, Quiet, Step

Batch = tuple[torch.Tensor, torch.Tensor]
"""What the model takes, (N, …); numbers (N,) or (N, numbers)."""


class Regression(Quiet):
    """The mean over all numbers of the squared error. Metrics: MAE and RMSE over all numbers, R² as the mean over those of a sample.

    huber: half the squared error up to this one and linear beyond, so that what lies far off counts for less (Huber, 1964,
    https://doi.org/10.1214/aoms/1177703732); in units of the target. 0: squared everywhere. metrics: beside these, of torchmetrics by the
    names of its functions (named_metrics.py); the mean over the numbers of a sample where each has one of its own.
    """

    predicts = "numbers"

    def __init__(self, huber: float = 0.0, metrics: Sequence[named_metrics.Asked] = ()) -> None:
        """Raises ValueError naming the key."""
        if huber < 0:
            raise ValueError(f"task.huber={huber} cannot be; type a number above 0, in units of the target, or 0 for the squared error")
        self._huber = huber
        self._criterion = nn.HuberLoss(reduction="sum", delta=huber) if huber else nn.MSELoss(reduction="sum")
        _, others = named_metrics.sorted_out(metrics, lambda name: False)
        self._others = named_metrics.of_numbers(others, "always there (mae, rmse, r2)")

    def step(self, model: Model, batch: Batch) -> Step:
        found, wanted = self._pair(model, batch)
        off = (found - wanted).detach()
        return Step(self._criterion(found, wanted), wanted.numel(), (off.abs().sum(), off.square().sum()))

    def train_metrics(self, loss: float, weight: float, statistics: Sequence[float]) -> dict[str, float]:
        absolute, squared = statistics
        return {"loss": loss / weight, "mae": absolute / weight, "rmse": (squared / weight) ** 0.5}

    def losses(self, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """(N,): of each sample, the mean over its numbers (N, numbers)."""
        each = nn.functional.huber_loss(found, wanted, reduction="none", delta=self._huber) if self._huber else (found - wanted).square()
        return each.mean(1)

    def metrics(self) -> Moments:
        return Moments(self._pair, self._criterion, self._others)

    @staticmethod
    def _pair(model: Model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, numbers) each. Raises ValueError where the model gives another count than there is to be found."""
        found, wanted = model(batch[0]), batch[1]
        if wanted.ndim == 1:
            wanted = wanted[:, None]
        if found.shape != wanted.shape:
            raise ValueError(
                f"task=regression: the model gives {tuple(found.shape[1:])} for each sample, and there are {tuple(wanted.shape[1:])} to be "
                f"found; type model.out_features={wanted[0].numel()}"
            )
        return found, wanted.to(found.dtype)


class Moments:
    """Sums of losses and errors, and of each number its count, mean and squares about the mean: float64 (numbers, 6).

    Joined two by two, by the formula of Chan, Golub and LeVeque (1979): squares of what is far from 0 are never taken, whose difference
    would have no digit left. So what unequal shares of a split come to is what the whole comes to, up to the last bits.
    Where another package's metrics are asked for, all numbers of the split are kept too, on every rank.
    """

    def __init__(self, pair: Any, criterion: nn.Module, others: Sequence[named_metrics.NamedMetric] = ()) -> None:
        self._pair, self._criterion, self._others = pair, criterion, others
        self._pairs = Pairs("found", "wanted")
        self._total: torch.Tensor | None = None

    def update(self, model: Model, batch: Batch) -> None:
        pair = self._pair(model, batch)
        if self._others:
            self._pairs.add(*pair)
        found, wanted = map(wide, pair)
        off, mean = found - wanted, wanted.mean(0)
        spread = (wanted - mean).square().sum(0)
        loss = self._criterion(found, wanted) / wanted.shape[1]
        parts = (torch.full_like(mean, len(wanted)), mean, spread, off.abs().sum(0), off.square().sum(0), loss.expand_as(mean))
        self._join(torch.stack(parts, 1))

    def state(self) -> Mapping[str, torch.Tensor]:
        return {} if self._total is None else {"moments": self._total, **self._pairs.state()}

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        if "moments" in state:
            self._join(state["moments"])
            self._pairs.merge(state)

    def result(self) -> dict[str, float]:
        """R² of what does not vary is 1 where it is found and 0 where it is not. Raises ValueError where nothing was counted."""
        if self._total is None:
            raise ValueError("no rank has counted a batch")
        count, _, spread, absolute, squared, loss = self._total.unbind(1)
        r2 = torch.where(spread > 0, 1 - squared / spread.clamp_min(torch.finfo(torch.float64).tiny), (squared == 0).double())
        mean = {name: float(each.sum() / count.sum()) for name, each in (("loss", loss), ("mae", absolute), ("mse", squared))}
        others = {each.name: each.of_numbers(*self._pairs.all()) for each in self._others}
        ours = {"loss": mean["loss"], "mae": mean["mae"], "rmse": mean["mse"] ** 0.5, "r2": float(r2.mean())}
        return {**ours, **others, "samples": int(count[0])}

    def _join(self, other: torch.Tensor) -> None:
        mine = self._total
        if mine is None:
            self._total = other
            return
        total = mine + other
        count, apart = total[:, 0], other[:, 1] - mine[:, 1]
        total[:, 1] = mine[:, 1] + apart * other[:, 0] / count
        total[:, 2] += apart.square() * mine[:, 0] * other[:, 0] / count
        self._total = total
