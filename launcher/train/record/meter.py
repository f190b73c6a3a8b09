"""Running totals of training on the device, fetched every `log_every` steps without waiting."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from launcher.train import device
from launcher.train.device import Event
from launcher.train.tasks.task import Step

_MOST = 256
"""Numbers kept apart in a total before they are added up: they are small, and a log line may be far."""


class Meter:
    """Totals of a task's steps: of losses, of each statistic, of weights. Part of the state: a run that resumes within an interval logs the
    same line.

    A step appends what it has to lists; they are added up, in float64, where somebody asks: a few operations a line, not a few a step.
    """

    def __init__(self, where: torch.device) -> None:
        """`where`: it is computed."""
        self.device = where
        self._aside = device.place_of_sums(where)
        self._columns: list[list[torch.Tensor]] = []
        """Of losses, and of each statistic."""
        self._weights: list[torch.Tensor] = []
        self._left_out: list[torch.Tensor] = []
        self._totals = torch.zeros(2, dtype=torch.float64, device=self._aside)
        """Added up already: of weights that the host does not know, of updates left out; then of losses and of each statistic."""
        self.weight = 0
        """That the host knows, of this rank."""
        self._marked = self._totals, 0
        self.steps = 0

    def add(self, step: Step) -> None:
        """One micro-batch. In the hot loop: nothing is computed."""
        columns = self._columns
        if not columns:
            self._columns = columns = [[] for _ in range(1 + len(step.statistics))]
        columns[0].append(step.loss.detach())
        for column, value in zip(columns[1:], step.statistics, strict=True):
            column.append(value)
        if isinstance(step.weight, int):
            self.weight += step.weight
        else:
            self._weights.append(step.weight)
        if len(columns[0]) >= _MOST:
            self._fold()

    def mark(self) -> None:
        """Where `since_mark` counts from."""
        self._fold()
        self._marked = self._totals, self.weight

    def since_mark(self) -> torch.Tensor:
        """(sum of losses, weight) on this rank, (2,) float64."""
        self._fold()
        totals, weight = self._marked
        loss = self._totals[2] - totals[2] if len(totals) > 2 else self._totals[2]
        return torch.stack([loss, self._totals[0] - totals[0] + (self.weight - weight)])

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What is added in this context counts for nothing."""
        self._fold()
        kept = self._totals, self.weight
        yield
        self._fold()
        self._totals, self.weight = kept

    def leave_out(self, bad: torch.Tensor, micro_batches: int) -> None:
        """Where `bad` (0-d, bool) holds, the last `micro_batches` count for nothing."""
        for column in (*self._columns, self._weights):
            for place in range(max(0, len(column) - micro_batches), len(column)):
                column[place] = torch.where(bad, torch.zeros_like(column[place]), column[place])
        self._left_out.append(bad)
        self._fold()

    def take(self) -> tuple[Fetch, int]:
        """Start the copy of the totals to the host, for `Totals.of`, and count from zero again. Returns it and this rank's weight."""
        self._fold()
        fetch, weight = Fetch(self._totals), self.weight
        self._totals = torch.zeros_like(self._totals)
        self.weight = self.steps = 0
        return fetch, weight

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        """What a checkpoint keeps; the totals stay on the device, for reading them would wait for it."""
        self._fold()
        return {"totals": self._totals}, {"weight": self.weight, "steps": self.steps}

    def load(self, tensors: Mapping[str, torch.Tensor], counts: Mapping[str, int]) -> None:
        """What `state` gave."""
        self._totals = tensors["totals"].to(self._aside, torch.float64)
        self._columns, self._weights, self._left_out = [], [], []
        self.weight, self.steps = counts["weight"], counts["steps"]

    def _fold(self) -> None:
        if not self._columns and not self._left_out:
            return
        columns = [self._weights, self._left_out, *self._columns]
        sums = torch.stack([_sum(column, self._aside) for column in columns])
        length = max(len(sums), len(self._totals))
        self._totals = _padded(sums, length) + _padded(self._totals, length)
        for column in columns:
            column.clear()


def _sum(column: list[torch.Tensor], where: torch.device) -> torch.Tensor:
    if not column:
        return torch.zeros((), dtype=torch.float64, device=where)
    return torch.stack(column).to(where).sum(dtype=torch.float64)


def _padded(sums: torch.Tensor, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(sums, (0, length - len(sums)))


class Totals(NamedTuple):
    """A fetched total, read."""

    weight: float
    """Beside that which the host knows."""
    left_out: float
    """Updates."""
    loss: float
    statistics: list[float]

    @classmethod
    def of(cls, values: list[float]) -> Totals:
        weight, left_out, loss, *statistics = values
        return cls(weight, left_out, loss, statistics)


class Fetch:
    """A copy from the device under way; `value()` waits for it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._event: Event | None = None
        if tensor.is_cpu:
            self._host = tensor
        elif device.has_streams(tensor.device):
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = event = device.event(tensor.device)
            event.record()
        else:
            self._host = tensor.cpu()

    def value(self) -> torch.Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._host
