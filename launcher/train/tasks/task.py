"""What a task is to the loop: the loss of a micro-batch, what is counted beside it, and the metrics of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch

Model = Callable[..., Any]
"""What a task calls: in training what the strategy prepared, else the model itself; either computes in the run's precision and returns
floating-point tensors as float32."""


class Step(NamedTuple):
    """Of one micro-batch on one process."""

    loss: torch.Tensor
    """The sum over what counts in it, 0-d, with its graph: no mean, for the means of unequal micro-batches have no mean."""
    weight: int | torch.Tensor
    """Over how many the sum goes (samples, tokens, boxes). An update follows the gradient of the sum of all losses over the sum of all
    weights, of every micro-batch on every rank. An int is the same in each of them, as a loader's equal shares are; a 0-d tensor may be
    any number, and costs one small message a step."""
    statistics: Sequence[torch.Tensor] = ()
    """0-d sums without a graph, as many and in the order as `train_metrics` takes them. Nothing here may wait for the device."""


class Metrics(Protocol):
    """An accumulator over one split; every rank fills one of its own, then all are merged into a fresh one, in the order of ranks."""

    def update(self, model: Model, batch: Any) -> None:
        """One batch; within torch.no_grad, and the model evaluates."""
        ...

    def state(self) -> Mapping[str, torch.Tensor]:
        """What `merge` takes: tensors of any shape and type, for they cross between processes. May be empty before the first `update`."""
        ...

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take in what another one has seen; its tensors are on the CPU."""
        ...

    def result(self) -> dict[str, float]:
        """By name, `samples` among them: it is compared with the number of samples there are."""
        ...


class Task(Protocol):
    """What is learnt. One file each in launcher/train/tasks/, or in a package of the user's own.

    One whose weight counts something else than samples may say what, in an attribute `unit` ("tokens"): metrics have how many a second.
    One with a true `needs_labels` is given those of the training part before the first step, (n,) int64: `learn_labels(labels)`.
    One whose model others are to use may say what it predicts (docs/after-training.md), in an attribute `predicts`: classes, numbers, boxes
    or tokens; and what is to be known to read its outputs, in `predicting`, as JSON has it.
    """

    def step(self, model: Model, batch: Any) -> Step: ...

    def train_metrics(self, loss: float, weight: float, statistics: Sequence[float]) -> dict[str, float]:
        """Of the sums over some steps and all ranks. A `loss` in it is judged: train.on_bad."""
        ...

    def metrics(self) -> Metrics:
        """An empty accumulator."""
        ...

    def show_batch(self, board: Any, batch: Any, step: int) -> None:
        """The first micro-batch, for TensorBoard: `board` is a launcher.train.record.board.Board."""
        ...

    def show_evaluation(self, board: Any, metrics: Any, split: str, names: Sequence[str], step: int) -> None:
        """What `metrics` gave, merged. `names`: of the classes, where the data set says them."""
        ...


class Quiet:
    """Has nothing to show: a task that takes from here needs neither method."""

    def show_batch(self, board: Any, batch: Any, step: int) -> None:
        pass

    def show_evaluation(self, board: Any, metrics: Any, split: str, names: Sequence[str], step: int) -> None:
        pass


class Sums:
    """Metrics that are sums and nothing else: one float64 vector, of which a task says how a batch adds to it and what it means.

    Added on the device, so that no batch waits for it.
    """

    def __init__(self, sums: Callable[[Model, Any], torch.Tensor], result: Callable[[torch.Tensor], dict[str, float]]) -> None:
        """`sums` of one batch, 1-d float64; `result` takes their total, on the CPU."""
        self._sums, self._result = sums, result
        self.total: torch.Tensor | None = None

    def update(self, model: Model, batch: Any) -> None:
        self._add(self._sums(model, batch))

    def state(self) -> Mapping[str, torch.Tensor]:
        return {} if self.total is None else {"sums": self.total}

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        if "sums" in state:
            self._add(state["sums"])

    def result(self) -> dict[str, float]:
        """Raises ValueError where nothing was counted."""
        if self.total is None:
            raise ValueError("no rank has counted a batch")
        return self._result(self.total)

    def _add(self, sums: torch.Tensor) -> None:
        self.total = sums if self.total is None else self.total + sums


class Pairs:
    """What is kept of each sample, for a metric that is no sum: two tensors, under these names where they cross between processes."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._seen: list[tuple[torch.Tensor, ...]] = []

    def add(self, *pair: torch.Tensor) -> None:
        self._seen.append(tuple(each.clone() for each in pair))  # labels that are part of a batch would keep its images too

    def state(self) -> dict[str, torch.Tensor]:
        return dict(zip(self._names, self.all(), strict=True)) if self._seen else {}

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        if self._names[0] in state:
            self.add(*(state[name] for name in self._names))

    def all(self) -> tuple[torch.Tensor, ...]:
        """Of all samples so far, of which there is one at least."""
        return tuple(map(torch.cat, zip(*self._seen, strict=True)))
