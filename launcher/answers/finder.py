"""From what the points of a detector say to boxes: one version, for evaluations and for whoever uses the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from launcher.answers.boxes import around, survivors


class Picked(NamedTuple):
    """The best of each picture, best first; `real` where there is one."""

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor
    real: torch.Tensor


class Finder(NamedTuple):
    """From what points say to boxes."""

    least_score: float
    most_overlap: float
    most_boxes: int

    def __call__(self, outputs: Mapping[str, torch.Tensor], size: tuple[int, int]) -> Picked:
        """`size`: (height, width) of the pictures, beyond which no box goes."""
        classes = outputs["scores"].shape[-1]
        # The geometric mean of both, as in the authors' later code: of one order with the paper's product, and closer to a probability.
        scores = (outputs["scores"].sigmoid() * outputs["centres"].sigmoid()[..., None]).sqrt().flatten(1)
        scores, place = scores.topk(min(4 * self.most_boxes, scores.shape[1]), dim=1)
        point, label = place // classes, place % classes
        distances = outputs["distances"] * outputs["strides"][:, None]
        boxes = around(distances) + outputs["points"].repeat(1, 2)
        boxes = boxes.gather(1, point[..., None].expand(-1, -1, 4))
        height, width = size
        boxes = boxes.clamp_min(0).minimum(boxes.new_tensor([width, height, width, height]))
        stays = (scores > self.least_score) & survivors(boxes, label, self.most_overlap)
        order = torch.argsort(stays, dim=1, descending=True, stable=True)[:, : self.most_boxes]
        picked = (scores.gather(1, order), label.gather(1, order), stays.gather(1, order))
        return Picked(boxes.gather(1, order[..., None].expand(-1, -1, 4)), *picked)
