"""One label per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from launcher.train.tasks import named_metrics
from launcher.train.tasks.class_metrics import OURS, Batch, ClassMetrics, hardened, is_ours
from launcher.train.tasks.entropy import balanced, cross_entropy, focal, of_labels, weight_of
from launcher.train.tasks.task import Model, Step

LOSSES = ("cross_entropy", "focal")
GAMMA = 2.0
"""Of the focal loss: what the paper found best (Lin et al., 2017, section 5.1)."""


class Classification:
    """Cross-entropy with label smoothing, or the focal loss, with a weight for each class (entropy.py); accuracy; confusion matrix; what
    `metrics` names (class_metrics.py).

    With weights the loss is the mean over the weights of all samples of an update, wherever they are: what `torch.nn.CrossEntropyLoss`
    with `weight` gives for the whole batch.
    """

    predicts = "classes"

    def __init__(
        self,
        label_smoothing: float = 0.0,
        loss: str = "cross_entropy",
        gamma: float | None = None,
        class_weights: Sequence[float] | str | None = None,
        metrics: Sequence[named_metrics.Asked] = (),
    ) -> None:
        """`loss`: cross_entropy | focal. `gamma`: of the focal loss, how much less what is easy counts; null: 2. `class_weights`: a number
        for each class; balanced: by how many samples it has in training. `metrics`: of ours, or of torchmetrics by the names of its
        functions. Raises ValueError naming the key."""
        if loss not in LOSSES:
            raise ValueError(f"task.loss={loss} cannot be; type one of {', '.join(LOSSES)}")
        if loss == "focal" and label_smoothing:
            raise ValueError(
                f"task.label_smoothing={label_smoothing}: the focal loss is of one class for each label; type task.label_smoothing=0, or "
                "task.loss=cross_entropy"
            )
        if loss != "focal" and gamma is not None:
            raise ValueError(f"task.gamma={gamma}: cross-entropy has none; type task.loss=focal, or task.gamma=null")
        if gamma is not None and gamma < 0:
            raise ValueError(f"task.gamma={gamma} cannot be; type a number from 0, or null for {GAMMA:g}")
        self.needs_labels = class_weights == "balanced"
        """Whether `learn_labels` has to come before the first step."""
        strength = GAMMA if gamma is None else gamma
        self._loss = partial(focal, gamma=strength) if loss == "focal" else partial(cross_entropy, smoothing=label_smoothing)
        self._class_weights = None if class_weights is None or isinstance(class_weights, str) else _checked(class_weights)
        if isinstance(class_weights, str) and not self.needs_labels:
            raise ValueError(f"task.class_weights={class_weights} cannot be; type balanced, a list of numbers, or null")
        self._weights: torch.Tensor | None = None
        """On the device, once it is known."""
        self._told: set[str] = set()
        self._metrics, others = named_metrics.sorted_out(metrics, is_ours)
        self._others = named_metrics.of_classes(others, OURS)

    def learn_labels(self, labels: torch.Tensor) -> None:
        """Of all samples of the training part, (n,) int64; the same on every rank."""
        self._class_weights, self._weights = balanced(torch.bincount(labels).tolist()), None

    def step(self, model: Model, batch: Batch) -> Step:
        images, labels = batch
        outputs = model(images)
        weights = self._of_classes(outputs)
        with of_labels(outputs, labels):
            loss = self._loss(outputs, labels, weights)
        correct = (outputs.argmax(1) == hardened(labels)).sum()
        if weights is None:
            return Step(loss, len(labels), (correct,))
        return Step(loss, weight_of(labels, weights), (correct, torch.full_like(correct, len(labels))))

    def train_metrics(self, loss: float, weight: float, statistics: Sequence[float]) -> dict[str, float]:
        correct, *samples = statistics  # which the weight is, where classes have none
        return {"loss": loss / weight, "accuracy": correct / (samples[0] if samples else weight)}

    def metrics(self) -> ClassMetrics:
        return ClassMetrics(self._metrics, self._others)

    def show_batch(self, board: Any, batch: Batch, step: int) -> None:
        """A grid of up to 64 images as the model sees them, stretched to the visible range; of other samples nothing."""
        if batch[0].ndim != 4 or batch[0].shape[1] not in (1, 3):
            return
        images = batch[0][:64].float().cpu()
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        board.images("train/first_batch", (images - low) / (high - low).clamp_min(1e-6), step)

    def show_evaluation(self, board: Any, metrics: ClassMetrics, split: str, names: Sequence[str], step: int) -> None:
        """The confusion matrix; F1 and the area under the curve of each class, as a table. Which classes have no area is said once."""
        confusion = metrics.confusion()
        if confusion is None:
            return
        board.matrix(f"{split}/confusion", confusion, names, step)
        named = [names[label] if label < len(names) else str(label) for label in range(len(confusion))]
        columns = {name: each.tolist() for name, each in (("f1", metrics.f1()), ("auroc", metrics.areas)) if each is not None}
        if columns:
            rows = [["class", "samples", *columns], ["---"] * (2 + len(columns))]
            for name, count, *values in zip(named, confusion.sum(1).tolist(), *columns.values(), strict=True):
                rows.append([name, f"{count:.0f}", *("none" if math.isnan(value) else f"{value:.4f}" for value in values)])
            board.text(f"{split}/classes", "\n".join(map(" | ".join, rows)), step)
        absent = [name for name, value in zip(named, columns.get("auroc", ()), strict=False) if math.isnan(value)]
        if absent and split not in self._told:
            self._told.add(split)
            said = f"{split}: auroc is the mean over {len(named) - len(absent)} of {len(named)} classes"
            print(f"warning: {said}; of {', '.join(absent[:8])}{', …' * (len(absent) > 8)} there is no sample, or nothing else")

    def _of_classes(self, outputs: torch.Tensor) -> torch.Tensor | None:
        """(classes,) on the device of the scores. Raises ValueError where there are fewer scores than weights; a class of the model's that
        `balanced` found no sample of weighs nothing."""
        if self._class_weights is None or (self._weights is not None and self._weights.device == outputs.device):
            return self._weights
        given, classes = self._class_weights, outputs.shape[1]
        if len(given) > classes or (len(given) < classes and not self.needs_labels):
            raise ValueError(f"task.class_weights: there are {len(given)}, and the model has {classes} classes; type one for each")
        self._weights = outputs.new_tensor([*given, *[0.0] * (classes - len(given))])
        return self._weights


def _checked(weights: Sequence[float]) -> list[float]:
    if not all(isinstance(each, int | float) and each >= 0 for each in weights) or not any(weights):
        raise ValueError(f"task.class_weights={list(weights)} cannot be; type a number from 0 for each class, of which one is above 0")
    return [float(each) for each in weights]
