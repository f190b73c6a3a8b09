"""What a split of labelled samples comes to: loss, accuracy, confusion matrix, and what `task.metrics` asks for beside them.

Ours, and not torchmetrics': its states are gathered by an all_gather of its own over all ranks, while a split is counted here by the ranks
that hold its samples alone (launcher/train/evaluate.py: not by those that hold another part of the same model), merged in their order, and
`samples` is held against the number there are. What we have not is a function of torchmetrics, of all samples (named_metrics.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from launcher.train.device import wide
from launcher.train.tasks.entropy import of_labels
from launcher.train.tasks.named_metrics import NamedMetric
from launcher.train.tasks.roc import areas
from launcher.train.tasks.task import Model, Pairs, Sums

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images (N, C, H, W), or whatever the model takes, (N, …); labels (N,) int64, or their probabilities (N, classes) float32, as mixed
samples have them."""

OURS = "top5 (or another number from 2), f1 and auroc"


class ClassMetrics(Sums):
    """One accumulator; where `auroc` or another package's is asked for it keeps the scores of the split, 4 bytes of memory for each sample
    and class on every rank; `auroc` sorts them once for each class."""

    def __init__(self, names: Sequence[str], others: Sequence[NamedMetric] = ()) -> None:
        """`names`: those that `is_ours` knows. `others`: of another package."""
        self._tops = [top for top in map(_top, names) if top]
        self._has_f1, self._has_auroc = "f1" in names, "auroc" in names
        super().__init__(self._of_batch, self._of_total)
        self._others = others
        self._pairs = Pairs("scores", "labels")
        self.areas: torch.Tensor | None = None
        """Of each class, once there is a result; NaN of one that has none."""

    def state(self) -> Mapping[str, torch.Tensor]:
        return {**super().state(), **self._pairs.state()}

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        super().merge(state)
        self._pairs.merge(state)

    def confusion(self) -> torch.Tensor | None:
        """(classes, classes): label, prediction; None where nothing was counted."""
        return None if self.total is None else _confusion(self.total, len(self._tops))

    def f1(self) -> torch.Tensor | None:
        """Of each class; NaN for one that neither is there nor was found. None where it is not asked for."""
        confusion = self.confusion()
        return None if confusion is None or not self._has_f1 else f1(confusion)

    def _of_batch(self, model: Model, batch: Batch) -> torch.Tensor:
        """(sum of losses, hits of each top, confusion matrix row by row: label, prediction), float64. The loss is the cross-entropy as it
        is, whatever is trained by: it says the same of any two runs."""
        samples, labels = batch
        outputs = model(samples)
        classes, hard = outputs.shape[1], hardened(labels)
        with of_labels(outputs, labels):
            loss = nn.functional.cross_entropy(outputs.float(), labels, reduction="sum")
        confusion = torch.bincount(hard * classes + outputs.argmax(1), minlength=classes * classes)
        if too_many := [top for top in self._tops if top >= classes]:
            raise ValueError(f"task.metrics: top{too_many[0]} of {classes} classes is always right; leave it out, or type a smaller one")
        hits = [(outputs.topk(top, 1).indices == hard[:, None]).sum() for top in self._tops]
        if self._has_auroc or self._others:
            self._pairs.add(outputs.float(), hard)
        return torch.cat((torch.stack([wide(loss), *map(wide, hits)]), wide(confusion)))

    def _of_total(self, total: torch.Tensor) -> dict[str, float]:
        confusion = _confusion(total, len(self._tops))
        samples = confusion.sum()
        found = {"loss": float(total[0] / samples), "accuracy": float(confusion.trace() / samples)}
        found |= {f"top{top}": float(hits / samples) for top, hits in zip(self._tops, total[1:], strict=False)}
        if self._has_f1:
            found["f1"] = float(f1(confusion).nanmean())
        if self._has_auroc:
            self.areas = areas(*self._pairs.all())
            found["auroc"] = float(self.areas.nanmean())
        found |= {each.name: each.of_classes(*self._pairs.all()) for each in self._others}
        return {**found, "samples": int(samples)}


def is_ours(name: str) -> bool:
    """top<k> (top5: the label is among the 5 highest scores), f1 or auroc."""
    return name in ("f1", "auroc") or _top(name) > 1


def _top(name: str) -> int:
    """5 of top5; 0 of what is none."""
    found = re.fullmatch(r"top(\d+)", name)
    return int(found[1]) if found else 0


def hardened(labels: torch.Tensor) -> torch.Tensor:
    """(N,): of probabilities the most likely class."""
    return labels.argmax(1) if labels.ndim > 1 else labels


def f1(confusion: torch.Tensor) -> torch.Tensor:
    """(classes,): 2 hits / (labels + predictions), the harmonic mean of precision and recall (van Rijsbergen, 1979, Information Retrieval,
    chapter 7); NaN where there is neither. Their mean over what is a number is the macro F1 of scikit-learn."""
    return 2 * confusion.diagonal() / (confusion.sum(0) + confusion.sum(1))


def _confusion(total: torch.Tensor, tops: int) -> torch.Tensor:
    classes = round((total.numel() - 1 - tops) ** 0.5)
    return total[1 + tops :].view(classes, classes)
