"""Metrics of torchmetrics by their names, where `task.metrics` asks for one that is none of ours.

Its functions and not its classes: the states of those are gathered over all ranks, though some hold parts of the same model, and each is
reduced in a way of its own, a few in none. A function of all samples of a split is right whatever it counts, and the same on any ranks.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch

INSTALL = "pip install 'launcher[metrics]'"
BINARY, MULTICLASS = "binary_", "multiclass_"
_CLASSES = 101
"""Of a trial: more than any `top_k` is likely to ask for."""

Asked = str | Mapping[str, Any]
"""An entry of `task.metrics`: a name, or {name: its keywords}."""


class NamedMetric(NamedTuple):
    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]

    def of_classes(self, scores: torch.Tensor, labels: torch.Tensor) -> float:
        """Of a model's scores (N, classes) and labels (N,). Raises ValueError."""
        chances, classes = scores.float().softmax(1), scores.shape[1]
        if not self.name.startswith(BINARY):
            return self._number(chances, labels, num_classes=classes)
        if classes != 2:
            raise ValueError(f"task.metrics: {self.name} is of two classes, and the model has {classes}; leave out {BINARY}")
        return self._number(chances[:, 1].contiguous(), labels)

    def of_numbers(self, found: torch.Tensor, wanted: torch.Tensor) -> float:
        """Of (N, numbers) each; the mean where each number has one of its own. Raises ValueError."""
        pair = (each.double().squeeze(1) if each.shape[1] == 1 else each.double() for each in (found, wanted))
        return self._number(*pair, is_mean=True)

    def _number(self, *pair: torch.Tensor, is_mean: bool = False, **given: Any) -> float:
        try:
            value = self.function(*pair, **given, **self.options)
        except Exception as error:  # a stranger's function: it checks its keywords as it likes
            raise ValueError(f"task.metrics: {self.name}: {' '.join(str(error).split())[:200]}") from error
        if not isinstance(value, torch.Tensor) or value.ndim > is_mean:
            raise ValueError(f"task.metrics: {self.name} comes to more than one number; type one that comes to one, or its average")
        return float(value.double().mean())


def sorted_out(asked: Sequence[Asked], is_ours: Callable[[str], bool]) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
    """The names of ours, and of others with their keywords. Raises ValueError for what is neither, or there twice."""
    if isinstance(asked, str):
        raise ValueError(f"task.metrics={asked} is no list; type task.metrics=[{asked}]")
    ours: list[str] = []
    others: dict[str, Mapping[str, Any]] = {}
    for entry in asked:
        single = {entry: None} if isinstance(entry, str) else entry
        if not isinstance(single, Mapping) or len(single) != 1 or not isinstance(keywords := next(iter(single.values())), Mapping | None):
            raise ValueError(f"task.metrics: {entry} is no metric; type its name, or {{name: {{keyword: value}}}}")
        name = str(next(iter(single)))
        if name in others or name in ours:
            raise ValueError(f"task.metrics: {name} is there twice; leave out one")
        if is_ours(name):
            ours.append(name)
        else:
            others[name] = cast("Mapping[str, Any]", keywords or {})
        if name in ours and keywords:
            raise ValueError(f"task.metrics: {name} is ours and takes no keywords; type {name} alone")
    return ours, others


def of_classes(others: Mapping[str, Mapping[str, Any]], ours: str) -> list[NamedMetric]:
    """Each was tried on drawn scores: what would be refused at the first evaluation is so before the first step. `ours`: said where a name
    is none. Raises ValueError."""
    if not others:
        return []
    package = _package("classification", others, ours)
    names = {name.removeprefix(MULTICLASS): name for name in package.__all__ if name.startswith((BINARY, MULTICLASS))}
    if "accuracy" in others:
        raise ValueError("task.metrics: accuracy is always there; leave it out, or type recall, which is its mean over the classes")
    found = _found(package, names, others, ours)
    for metric in found:
        if "num_classes" in metric.options:
            raise ValueError(f"task.metrics: {metric.name} has num_classes from the model; leave it out")
        classes = 2 if metric.name.startswith(BINARY) else _CLASSES
        metric.of_classes(_drawn(2 * classes, classes), torch.arange(2 * classes) % classes)
    return found


def of_numbers(others: Mapping[str, Mapping[str, Any]], ours: str) -> list[NamedMetric]:
    """As `of_classes`; some are of one number for each sample, some of several. Raises ValueError."""
    if not others:
        return []
    package = _package("regression", others, ours)
    found = _found(package, {name: name for name in package.__all__}, others, ours)
    for metric in found:
        try:
            metric.of_numbers(_drawn(8, 1), _drawn(8, 1).flip(0))
        except ValueError as error:
            try:
                metric.of_numbers(_drawn(8, 3), _drawn(8, 3).flip(0))
            except ValueError:
                raise error from None
    return found


def _package(kind: str, others: Mapping[str, Any], ours: str) -> Any:
    try:
        from torchmetrics.functional import classification, regression  # pyright: ignore[reportMissingImports]  # an extra
    except (ImportError, RuntimeError, OSError) as error:  # it is not there, or was built for another torch
        line = " ".join(str(error).split())[:160]
        raise ValueError(
            f"task.metrics: {next(iter(others))} is none of ours, which are {ours}, and torchmetrics, which may have it, is not there "
            f"({line}); type {INSTALL}"
        ) from error
    return {"classification": classification, "regression": regression}[kind]


def _found(package: Any, names: Mapping[str, str], others: Mapping[str, Mapping[str, Any]], ours: str) -> list[NamedMetric]:
    """Only what the package lists: no name leads to another function."""
    for name in others:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"task.metrics: {name} is none of ours, which are {ours}, nor of torchmetrics{hint}")
        first = next(iter(inspect.signature(getattr(package, names[name])).parameters))
        if first != "preds":  # of kl_divergence it is what was wanted
            raise ValueError(f"task.metrics: {name} is not of what a model found and what was wanted; type another, or leave it out")
    return [NamedMetric(name, getattr(package, names[name]), options) for name, options in others.items()]


def _drawn(samples: int, numbers: int) -> torch.Tensor:
    return torch.rand(samples, numbers, generator=torch.Generator().manual_seed(0)) + 0.1
