"""Several tasks at once, on the outputs of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from launcher.train.tasks.task import Metrics, Model, Step, Task


class Composite:
    """The sum of the tasks' losses, each by its factor, over the weight of the first: so a box's terms are all over the number of boxes.

    task:
      _target_: launcher.train.tasks.composite.Composite
      tasks: {label: {_target_: …}, depth: {_target_: …}}
      factors: {depth: 0.5}
    """

    def __init__(self, tasks: Mapping[str, Task], factors: Mapping[str, float] | None = None) -> None:
        """`factors`: 1 where none is given. Raises ValueError."""
        factors = factors or {}
        if not tasks:
            raise ValueError("task.tasks: there is none; name one at least, as {label: {_target_: …}}")
        if unknown := sorted(factors.keys() - tasks.keys()):
            raise ValueError(f"task.factors.{unknown[0]}: there is no such task; those of task.tasks are {', '.join(tasks)}")
        self.tasks = dict(tasks)
        self.factors = {name: float(factors.get(name, 1.0)) for name in tasks}
        self.unit: str = getattr(next(iter(self.tasks.values())), "unit", "")
        self._learners = [task for task in self.tasks.values() if getattr(task, "needs_labels", False)]
        self.needs_labels = bool(self._learners)
        self._counts: dict[str, int] = {}
        """Of each task's statistics, once it has made a step."""

    def learn_labels(self, labels: torch.Tensor) -> None:
        for task in self._learners:
            cast("Any", task).learn_labels(labels)

    def step(self, model: Model, batch: Any) -> Step:
        once = Once(model)
        steps = {name: task.step(once, batch) for name, task in self.tasks.items()}
        self._counts = {name: len(step.statistics) for name, step in steps.items()}
        loss = torch.stack([self.factors[name] * step.loss for name, step in steps.items()]).sum()
        own = [part for step in steps.values() for part in (step.loss.detach(), _tensor(step), *step.statistics)]
        return Step(loss, next(iter(steps.values())).weight, own)

    def train_metrics(self, loss: float, weight: float, statistics: Sequence[float]) -> dict[str, float]:
        """`loss` of all, and each task's own as `<task>_<name>`."""
        found, left = {"loss": loss / weight}, list(statistics)
        for name, task in self.tasks.items():
            own_loss, own_weight, *rest = left[: 2 + self._counts[name]]
            left = left[2 + self._counts[name] :]
            found |= {f"{name}_{key}": value for key, value in task.train_metrics(own_loss, own_weight, rest).items()}
        return found

    def metrics(self) -> CompositeMetrics:
        return CompositeMetrics({name: task.metrics() for name, task in self.tasks.items()})

    def show_batch(self, board: Any, batch: Any, step: int) -> None:
        for task in self.tasks.values():
            task.show_batch(board, batch, step)

    def show_evaluation(self, board: Any, metrics: CompositeMetrics, split: str, names: Sequence[str], step: int) -> None:
        for name, task in self.tasks.items():
            task.show_evaluation(board, metrics.each[name], split, names, step)


class CompositeMetrics:
    """One accumulator for each task."""

    def __init__(self, each: Mapping[str, Metrics]) -> None:
        self.each = each

    def update(self, model: Model, batch: Any) -> None:
        once = Once(model)
        for metrics in self.each.values():
            metrics.update(once, batch)

    def state(self) -> Mapping[str, torch.Tensor]:
        return {f"{name}/{key}": value for name, metrics in self.each.items() for key, value in metrics.state().items()}

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, metrics in self.each.items():
            metrics.merge({key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")})

    def result(self) -> dict[str, float]:
        results = {name: metrics.result() for name, metrics in self.each.items()}
        named = {f"{name}_{key}": value for name, result in results.items() for key, value in result.items() if key != "samples"}
        return {**named, "samples": next(iter(results.values()))["samples"]}


class Once:
    """A model that computes what it is asked once: the second task that asks for the same inputs gets the same outputs."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        for asked, by_name, outputs in self._known:
            if _same(asked, inputs) and by_name.keys() == named.keys() and all(by_name[name] is named[name] for name in named):
                return outputs
        outputs = self._model(*inputs, **named)
        self._known.append((inputs, named, outputs))
        return outputs


def _same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _tensor(step: Step) -> torch.Tensor:
    weight = step.weight
    return weight.detach() if isinstance(weight, torch.Tensor) else torch.full((), weight, device=step.loss.device)
