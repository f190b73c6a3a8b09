"""Boxes in pictures and their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from launcher.answers.boxes import around, giou
from launcher.answers.finder import Finder, Picked
from launcher.train.device import wide
from launcher.train.tasks.assignment import assign, centredness
from launcher.train.tasks.average_precision import Found, average_precision
from launcher.train.tasks.drawn import visible, with_boxes
from launcher.train.tasks.task import Model, Step

Batch = tuple[torch.Tensor, Mapping[str, torch.Tensor]]
"""Images (N, 3, H, W); `boxes` (N, M, 4): left, top, right, bottom in pixels, `labels` (N, M) int64, -1 where there is none, `ignored`
(N, M) bool: neither sought nor wrong where it is found."""

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss (Lin et al., 2017, table 1)."""
SHOWN = 8
"""Pictures in TensorBoard."""
SHOWN_SCORE = 0.4


class Detection:
    """For a model whose points say classes, distances to the edges of a box and whether they are in its middle (models/detector.py has the
    words), the losses of FCOS (Tian et al., 2019, https://arxiv.org/abs/1904.01355): focal (Lin et al., 2017,
    https://arxiv.org/abs/1708.02002) for classes, GIoU (Rezatofighi et al., 2019, https://arxiv.org/abs/1902.09630) for boxes, binary
    cross-entropy for the middle. They go over the number of points that have a box to find, at least one a picture, so that a
    picture without boxes counts too. COCO's average precision, as `map50` at an overlap of 0.5 and `map` over ten from 0.5 to 0.95.
    """

    predicts = "boxes"

    def __init__(self, box_factor: float = 1.0, least_score: float = 0.05, most_overlap: float = 0.6, most_boxes: int = 100) -> None:
        """`box_factor`: of GIoU's loss. Of what is found: `least_score`; `most_overlap` of two boxes of a class; `most_boxes` in a picture,
        COCO's 100. Raises ValueError naming the key."""
        for key, value in (("least_score", least_score), ("most_overlap", most_overlap)):
            if not 0 <= value <= 1:
                raise ValueError(f"task.{key}={value}: not possible; type a number from 0 to 1")
        if box_factor < 0 or most_boxes < 1:
            raise ValueError("task.box_factor is 0 or more, task.most_boxes 1 or more; type other numbers")
        self._box_factor = box_factor
        self._finder = Finder(least_score, most_overlap, most_boxes)
        self.predicting = self._finder._asdict()

    def step(self, model: Model, batch: Batch) -> Step:
        classes, boxes, centres, weight = losses(model(batch[0]), batch[1])
        loss = classes + self._box_factor * boxes + centres
        return Step(loss, weight, tuple(each.detach() for each in (classes, boxes, centres)))

    def train_metrics(self, loss: float, weight: float, statistics: Sequence[float]) -> dict[str, float]:
        names = ("class_loss", "box_loss", "centre_loss")
        return {"loss": loss / weight, **{name: each / weight for name, each in zip(names, statistics, strict=True)}}

    def metrics(self) -> Detections:
        return Detections(self._finder, self._box_factor)

    def show_batch(self, board: Any, batch: Batch, step: int) -> None:
        """Some pictures as the model sees them, with what is to be found."""
        images, targets = batch[0][:SHOWN], {name: each[:SHOWN] for name, each in batch[1].items()}
        labels = torch.where(targets["ignored"], -1, targets["labels"])
        board.images("train/first_batch", with_boxes(visible(images), targets["boxes"], labels), step)

    def show_evaluation(self, board: Any, metrics: Detections, split: str, names: Sequence[str], step: int) -> None:
        """The same of the split's first pictures with what was found there; a table of the classes."""
        if metrics.shown is not None:
            board.images(f"{split}/found", metrics.shown, step)
        rows = ["class | ap50 | ap", "--- | --- | ---"]
        for label, each in enumerate(metrics.by_class().tolist()):
            name = names[label] if label < len(names) else str(label)
            rows.append(f"**{name}** | {each[0]:.3f} | {sum(each) / len(each):.3f}")
        board.text(f"{split}/average_precision", "\n".join(rows), step)


def losses(
    outputs: Mapping[str, torch.Tensor], targets: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over a batch of the losses of classes, boxes and middles, and their weight; 0-d each, and none waits for the device."""
    scores, labels = outputs["scores"], targets["labels"]
    found = assign(outputs["points"], outputs["strides"], targets["boxes"], labels, targets["ignored"])
    is_positive = found.box >= 0
    label = labels.gather(1, found.box.clamp_min(0))
    wanted = (label[..., None] == torch.arange(scores.shape[-1], device=scores.device)) & is_positive[..., None]
    of_class = (focal(scores, wanted.to(scores.dtype)) * found.counts[..., None]).sum()
    overlap = giou(around(outputs["distances"]), around(found.distances))
    of_box = torch.where(is_positive, 1 - overlap, 0.0).sum()
    middle = F.binary_cross_entropy_with_logits(outputs["centres"], centredness(found.distances).clamp(0, 1), reduction="none")
    return of_class, of_box, torch.where(is_positive, middle, 0.0).sum(), is_positive.sum(1).clamp_min(1).sum().float()


def focal(scores: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of each score (a logit) whose class is there (1) or not (0): cross-entropy that fades where it is right already
    (https://arxiv.org/abs/1708.02002, equation 5)."""
    entropy = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    right = torch.exp(-entropy)  # the probability of what is wanted
    return (ALPHA * wanted + (1 - ALPHA) * (1 - wanted)) * (1 - right) ** GAMMA * entropy


class Detections:
    """What was found in the pictures of a split and what there is, whole: average precision is no sum. Merged in the order of ranks, whose
    shares follow each other, it is what one process would have collected."""

    def __init__(self, finder: Finder, box_factor: float) -> None:
        self._finder, self._box_factor = finder, box_factor
        self._parts: list[Mapping[str, torch.Tensor]] = []
        self.shown: torch.Tensor | None = None
        """The first pictures, with what was found in them: (8, 3, H, W) in 0..1."""
        self._by_class: torch.Tensor | None = None

    def update(self, model: Model, batch: Batch) -> None:
        images, targets = batch
        outputs = model(images)
        picked = self._finder(outputs, (images.shape[-2], images.shape[-1]))
        *parts, weight = losses(outputs, targets)
        loss = wide(parts[0] + self._box_factor * parts[1] + parts[2])
        is_there = targets["labels"] >= 0
        part = {"boxes": picked.boxes[picked.real], "scores": picked.scores[picked.real], "classes": picked.classes[picked.real]}
        part |= {"counts": picked.real.sum(1), "true_boxes": targets["boxes"][is_there], "true_classes": targets["labels"][is_there]}
        part |= {"true_ignored": targets["ignored"][is_there], "true_counts": is_there.sum(1)}
        part |= {"loss": torch.stack((loss, wide(weight)))[None], "kinds": torch.tensor([outputs["scores"].shape[-1]])}
        self._parts.append({name: each.cpu() for name, each in part.items()})
        if self.shown is None:
            first = Picked(*(each[:SHOWN].cpu() for each in picked))
            labels = torch.where(first.real & (first.scores > SHOWN_SCORE), first.classes, -1)
            self.shown = with_boxes(visible(images[:SHOWN]), first.boxes, labels)

    def state(self) -> Mapping[str, torch.Tensor]:
        if not self._parts:
            return {}
        return {**self._whole(), **({} if self.shown is None else {"shown": self.shown})}

    def merge(self, state: Mapping[str, torch.Tensor]) -> None:
        if "loss" in state:
            self._parts.append({name: each for name, each in state.items() if name != "shown"})
            self.shown = state.get("shown") if self.shown is None else self.shown

    def result(self) -> dict[str, float]:
        """`map50` and `map` are 0 where no box is sought at all. Raises ValueError where nothing was counted."""
        by_class, whole = self.by_class(), self._whole()
        loss, weight = whole["loss"].sum(0).tolist()
        known = by_class[~by_class[:, 0].isnan()]
        map50, mean = (float(each.mean()) if len(known) else 0.0 for each in (known[:, 0], known))
        return {"loss": loss / weight, "map50": map50, "map": mean, "samples": len(whole["counts"])}

    def by_class(self) -> torch.Tensor:
        """(classes, 10), as `average_precision` has it. Raises ValueError where nothing was counted."""
        if self._by_class is None:
            whole = self._whole()
            self._by_class = average_precision(Found(**{name: whole[name] for name in Found._fields}), int(whole["kinds"].max()))
        return self._by_class

    def _whole(self) -> dict[str, torch.Tensor]:
        if not self._parts:
            raise ValueError("no rank has counted a batch")
        return {name: torch.cat([part[name] for part in self._parts]) for name in self._parts[0]}
