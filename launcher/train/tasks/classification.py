"""One label per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (N, C, H, W), labels (N,) int64."""


class Classification:
    """Cross-entropy with label smoothing (Szegedy et al., 2015, https://arxiv.org/abs/1512.00567); accuracy; confusion matrix."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def inputs(self, batch: Batch) -> torch.Tensor:
        return batch[0]

    def loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean over the micro-batch; outputs (N, classes)."""
        return self.criterion(outputs, batch[1])

    train_sums = 2
    """How many sums `count` adds to: of losses, of correct answers."""

    def count(self, sums: Sequence[torch.Tensor], loss: torch.Tensor, outputs: torch.Tensor, batch: Batch) -> int:
        """Add a micro-batch to `sums` (float64 scalars on the device), without waiting for it. Returns its samples."""
        labels = batch[1]
        sums[0].add_(loss, alpha=labels.numel())
        sums[1].add_((outputs.argmax(1) == labels).sum())
        return labels.numel()

    def train_metrics(self, sums: Sequence[float], samples: float) -> dict[str, float]:
        """`sums` and `samples` over some steps and all ranks."""
        loss, correct = sums
        return {"loss": loss / samples, "accuracy": correct / samples}

    def eval_totals(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(sum of losses without smoothing, confusion matrix row by row: label, prediction), float64."""
        labels, classes = batch[1], outputs.shape[1]
        loss = nn.functional.cross_entropy(outputs.float(), labels, reduction="sum")
        confusion = torch.bincount(labels * classes + outputs.argmax(1), minlength=classes * classes)
        return torch.cat((loss.double().view(1), confusion.double()))

    def eval_metrics(self, totals: torch.Tensor) -> dict[str, float]:
        confusion = _square(totals)
        samples = confusion.sum()
        return {
            "loss": float(totals[0] / samples),
            "accuracy": float(confusion.trace() / samples),
            "samples": int(samples),
        }

    def show_batch(self, board: Any, batch: Batch, step: int) -> None:
        """A grid of up to 64 images as the model sees them, stretched to the visible range."""
        images = batch[0][:64].float().cpu()
        low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        board.images("train/first_batch", (images - low) / (high - low).clamp_min(1e-6), step)

    def show_evaluation(self, board: Any, totals: torch.Tensor, split: str, names: Sequence[str], step: int) -> None:
        board.matrix(f"{split}/confusion", _square(totals), names, step)


def _square(totals: torch.Tensor) -> torch.Tensor:
    classes = round((totals.numel() - 1) ** 0.5)
    return totals[1:].view(classes, classes)
