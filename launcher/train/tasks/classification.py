"""One label per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from launcher.train.device import wide
from launcher.train.tasks.task import Model, Step, Sums

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (N, C, H, W), or whatever the model takes, (N, …); labels (N,) int64."""


class Classification:
    """Cross-entropy with label smoothing (Szegedy et al., 2015, https://arxiv.org/abs/1512.00567); accuracy; confusion matrix."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing, reduction="sum")

    def step(self, model: Model, batch: Batch) -> Step:
        images, labels = batch
        outputs = model(images)
        correct = (outputs.argmax(1) == labels).sum()
        return Step(self.criterion(outputs, labels), labels.numel(), (correct,))

    def train_metrics(self, loss: float, weight: float, statistics: Sequence[float]) -> dict[str, float]:
        (correct,) = statistics
        return {"loss": loss / weight, "accuracy": correct / weight}

    def metrics(self) -> Sums:
        return Sums(_sums, _result)

    def show_batch(self, board: Any, batch: Batch, step: int) -> None:
        """A grid of up to 64 images as the model sees them, stretched to the visible range; of other samples nothing."""
        if batch[0].ndim != 4 or batch[0].shape[1] not in (1, 3):
            return
        images = batch[0][:64].float().cpu()
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        board.images("train/first_batch", (images - low) / (high - low).clamp_min(1e-6), step)

    def show_evaluation(self, board: Any, metrics: Sums, split: str, names: Sequence[str], step: int) -> None:
        if metrics.total is not None:
            board.matrix(f"{split}/confusion", _confusion(metrics.total), names, step)


def _sums(model: Model, batch: Batch) -> torch.Tensor:
    """(sum of losses without smoothing, confusion matrix row by row: label, prediction), float64."""
    images, labels = batch
    outputs = model(images)
    classes = outputs.shape[1]
    loss = nn.functional.cross_entropy(outputs.float(), labels, reduction="sum")
    confusion = torch.bincount(labels * classes + outputs.argmax(1), minlength=classes * classes)
    return torch.cat((wide(loss).view(1), wide(confusion)))


def _result(total: torch.Tensor) -> dict[str, float]:
    confusion = _confusion(total)
    samples = confusion.sum()
    return {"loss": float(total[0] / samples), "accuracy": float(confusion.trace() / samples), "samples": int(samples)}


def _confusion(total: torch.Tensor) -> torch.Tensor:
    classes = round((total.numel() - 1) ** 0.5)
    return total[1:].view(classes, classes)
