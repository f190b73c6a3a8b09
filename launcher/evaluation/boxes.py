"""Boxes in pictures: average precision by class and by size, as COCO has it (launcher/train/tasks/average_precision.py), with
intervals over pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from launcher.answers.boxes import area
from launcher.answers.colours import css
from launcher.answers.finder import Finder
from launcher.evaluation import pictures
from launcher.evaluation.bootstrap import Numbers, intervals
from launcher.evaluation.findings import Chart, Findings, Gallery, Metric, Picture, Series, Table, between, shown
from launcher.evaluation.taken import Most, Rows, most
from launcher.train.tasks.average_precision import Found, Matched
from launcher.train.tasks.detection import SHOWN_SCORE
from launcher.train.tasks.drawn import visible, with_boxes

SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels, as COCO has them; here of the picture that the model is given."""
SHOWN, SIDE = 12, 320


class Taker:
    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._parts: list[Rows] = []
        self._worst = Most(SHOWN)

    def add(self, outputs: Any, batch: Any, first: int) -> None:
        images, targets = batch
        picked = self._finder(outputs, (images.shape[-2], images.shape[-1]))
        is_there = targets["labels"] >= 0
        part = {"boxes": picked.boxes[picked.real], "scores": picked.scores[picked.real], "classes": picked.classes[picked.real]}
        part |= {"counts": picked.real.sum(1), "true_boxes": targets["boxes"][is_there], "true_classes": targets["labels"][is_there]}
        part |= {"true_ignored": targets["ignored"][is_there], "true_counts": is_there.sum(1)}
        part["kinds"] = torch.tensor([outputs["scores"].shape[-1]])
        part = {name: each.detach().cpu() for name, each in part.items()}
        ap50 = of_images(part)
        self._parts.append({**part, "ap50": ap50})
        there = torch.where(picked.real & (picked.scores > SHOWN_SCORE), picked.classes, -1)
        wanted = torch.where(targets["ignored"], -1, targets["labels"])

        def keep(best: torch.Tensor) -> Rows:
            seen, places = visible(images[best.to(images.device)]), best.to(images.device)
            pair = (with_boxes(seen, targets["boxes"][places], wanted[places]), with_boxes(seen, picked.boxes[places], there[places]))
            return {name: pictures.smaller(each, SIDE) for name, each in zip(("wanted", "found"), pair, strict=True)}

        self._worst.add(torch.where(ap50.isnan(), -torch.inf, 1 - ap50), first, keep)

    def rows(self) -> Rows:
        whole = {name: torch.cat([part[name] for part in self._parts]) for name in (self._parts[0] if self._parts else ())}
        return {**whole, **self._worst.rows("worst")}


def of_images(part: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(N,): average precision at an overlap of 0.5 in each picture alone, the mean over the classes sought there; NaN where none is."""
    found = Found(**{name: part[name] for name in Found._fields})
    matched = Matched(found, int(part["kinds"].max()))
    alone = torch.eye(len(found.counts), dtype=torch.float64)
    return torch.stack([matched(weights)[:, 0].nanmean() for weights in alone])


def findings(rows: Rows, values: dict[str, float], names: Sequence[str]) -> Findings:
    found, kinds = Found(**{name: rows[name] for name in Found._fields}), int(rows["kinds"].max())
    whole = Matched(found, kinds)
    by_size = {size: _of_size(found, kinds, *bounds) for size, bounds in SIZES.items()}

    def statistic(weights: Numbers) -> Numbers:
        """map50 and map; AP50 and AP of each class; map of each size."""
        of = torch.from_numpy(weights)
        table = whole(of)
        known = table[~table[:, 0].isnan()]
        overall = [float(each.mean()) if len(known) else 0.0 for each in (known[:, 0], known)]
        sizes = [float(each(of).nanmean()) for each in by_size.values()]
        return np.concatenate((overall, table[:, 0].numpy(), table.mean(1).numpy(), sizes))

    drawn = intervals(len(found.counts), statistic, cost=40.0 * len(found.scores) + 4e5)
    metrics = [Metric(*map(float, each)) for each in zip(drawn.value, drawn.low, drawn.high, strict=True)]
    ours = dict(zip(("map50", "map"), metrics, strict=False))
    result = Findings(resamples=drawn.resamples)
    result.metrics = {
        name: ours[name]._replace(value=value) if name in ours else Metric(value) for name, value in values.items() if name != "samples"
    }
    sizes = dict(zip(SIZES, metrics[2 + 2 * kinds :], strict=True))
    result.metrics |= {f"map_{size}": metric for size, metric in sizes.items() if not np.isnan(metric.value)}
    titles = [str(names[label]) if label < len(names) else str(label) for label in range(kinds)]
    sought = torch.bincount(found.true_classes[~found.true_ignored], minlength=kinds).tolist()
    rows_ = [
        [
            title,
            f"{sought[label]:,}",
            *(f"{shown(each.value)} {between(each)}".strip() for each in metrics[2 + label : 2 + 2 * kinds : kinds]),
        ]
        for label, title in enumerate(titles)
    ]
    result.parts = [Table("Classes", ("class", "boxes", "AP at 0.5", "AP, 0.5 to 0.95"), rows_, "With 95 % intervals over pictures.")]
    areas = area(found.true_boxes)[~found.true_ignored]
    lines = [
        [
            size,
            f"{low**0.5:.0f}² to {high**0.5:.0f}²" if high < 1e9 else f"from {low**0.5:.0f}²",
            f"{int(((areas >= low) & (areas < high)).sum()):,}",
            f"{shown(sizes[size].value)} {between(sizes[size])}".strip(),
        ]
        for size, (low, high) in SIZES.items()
    ]
    note = "COCO's sizes, of the picture as the model sees it."
    result.parts.append(Table("Sizes", ("size", "square pixels", "boxes", "AP, 0.5 to 0.95"), lines, note))
    known = [label for label in range(kinds) if sought[label]]
    bars = Series("AP at 0.5", [float(label) for label in known], [metrics[2 + label].value for label in known], "bars")
    called = [titles[label] for label in known]
    result.parts.append(Chart("by_class", "Average precision at 0.5 by class", "class", "AP at 0.5", [bars], names=called))
    result.parts += _shown(rows, titles)
    result.details = {
        "classes": [
            {"class": title, "boxes": sought[label], "ap50": metrics[2 + label]._asdict(), "ap": metrics[2 + kinds + label]._asdict()}
            for label, title in enumerate(titles)
        ],
        "sizes": {size: metric._asdict() for size, metric in sizes.items()},
    }
    result.columns = {"loss": (1 - rows["ap50"]).float().numpy(), "ap50": rows["ap50"].float().numpy()}
    return result


def _of_size(found: Found, kinds: int, low: float, high: float) -> Matched:
    """As COCO: boxes of other sizes are ignored, and so is what was found of another size and fits none."""
    true, own = area(found.true_boxes), area(found.boxes)
    is_other = (true < low) | (true >= high)
    return Matched(found._replace(true_ignored=found.true_ignored | is_other), kinds, (own < low) | (own >= high))


def _shown(rows: Rows, titles: Sequence[str]) -> list[Gallery]:
    best = most(rows, "worst", SHOWN)
    made: list[Picture] = []
    for wanted, found, place, by in zip(*(best.get(name, ()) for name in ("wanted", "found", "place", "by")), strict=True):
        made.append(Picture(pictures.png(torch.cat((wanted, found), 2)), f"picture {int(place)}: AP at 0.5 {1 - float(by):.2f}"))
    note = f"Left what there is, right what was found with a score above {SHOWN_SCORE}; a colour is a class."
    keys = [(title, css(label)) for label, title in enumerate(titles)]
    return [Gallery("Pictures found worst", made, note, is_broad=True, keys=keys)] if made else []
