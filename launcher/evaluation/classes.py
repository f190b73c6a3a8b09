"""One class for each sample: how often it is right and how sure it is, class by class, and where it is wrong.

Calibration is the expected calibration error in 15 bins of equal width (Guo et al., 2017, https://arxiv.org/abs/1706.04599,
section 2): the mean over samples of the distance, in each bin of the highest probability, between how sure the model was and how often it
was right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from launcher.evaluation import pictures
from launcher.evaluation.bootstrap import Numbers, intervals, share
from launcher.evaluation.findings import Chart, Findings, Gallery, Heat, Metric, Picture, Series, Table, between, shown
from launcher.evaluation.taken import Most, Rows, most
from launcher.train.tasks.class_metrics import hardened

BINS = 15
MISTAKES = 24
MOST_NAMED = 40
"""Classes of which a matrix is drawn; of more, the pairs that are mixed up most."""
PAIRS = 12


class Taker:
    def __init__(self) -> None:
        self._parts: list[Rows] = []
        self._worst, self._surest = Most(MISTAKES), Most(MISTAKES)

    def add(self, outputs: Any, batch: Any, first: int) -> None:
        samples, labels = batch
        scores = outputs.float()
        chances = scores.softmax(1)
        confidence, predicted = chances.max(1)
        label = hardened(labels)
        row = {"label": label, "predicted": predicted, "confidence": confidence, "scores": chances}
        row["loss"] = F.cross_entropy(scores, labels, reduction="none").float()
        self._parts.append({name: each.detach().cpu() for name, each in row.items()})
        if pictures.are_images(samples):
            is_wrong = predicted != label

            def keep(best: torch.Tensor) -> Rows:
                return {"image": pictures.kept(samples[best])}

            self._worst.add(row["loss"].masked_fill(~is_wrong, -torch.inf), first, keep)
            self._surest.add(confidence.masked_fill(~is_wrong, -torch.inf), first, keep)

    def rows(self) -> Rows:
        whole = {name: torch.cat([part[name] for part in self._parts]) for name in (self._parts[0] if self._parts else ())}
        return {**whole, **self._worst.rows("worst"), **self._surest.rows("surest")}


def findings(rows: Rows, values: dict[str, float], names: Sequence[str]) -> Findings:
    """`values`: what the task's own metrics came to; they are the figures, and have intervals where we know how to draw them."""
    label, predicted, confidence, loss = (rows[name].numpy() for name in ("label", "predicted", "confidence", "loss"))
    count = rows["scores"].shape[1]
    titles = [str(names[each]) if each < len(names) else str(each) for each in range(count)]
    bins = np.minimum((confidence.astype(np.float64) * BINS).astype(np.int64), BINS - 1)
    statistic = _statistic(label, predicted, confidence, loss, bins, count)
    found = intervals(len(label), statistic, cost=6.0 * count)
    metrics = [Metric(*map(float, each)) for each in zip(found.value, found.low, found.high, strict=True)]
    ours = dict(zip(("accuracy", "loss", "ece", "f1"), metrics, strict=False))
    by_class = [metrics[4 + each * count : 4 + (each + 1) * count] for each in range(3)]
    result = Findings(resamples=found.resamples)
    for name, value in values.items():
        if name != "samples":
            result.metrics[name] = ours[name]._replace(value=value) if name in ours else Metric(value)
    result.metrics |= {name: each for name, each in ours.items() if name not in result.metrics}
    support = np.bincount(label, minlength=count)
    confusion = np.bincount(label * count + predicted, minlength=count * count).reshape(count, count)
    reliability = _reliability(confidence, predicted == label, bins)
    result.parts = [_class_table(titles, support, by_class), *_confusion(titles, confusion), *_calibration(reliability, ours["ece"])]
    result.parts += _mistakes(rows, titles)
    result.details = {
        "classes": [
            {"class": titles[each], "support": int(support[each])}
            | {name: of[each]._asdict() for name, of in zip(("precision", "recall", "f1"), by_class, strict=True)}
            for each in range(count)
        ],
        "confusion": confusion.tolist(),
        "reliability": reliability,
    }
    columns = {"label": label, "predicted": predicted, "confidence": confidence, "loss": loss, "scores": rows["scores"].numpy()}
    result.columns = columns
    return result


def _statistic(label: Any, predicted: Any, confidence: Any, loss: Any, bins: Any, count: int) -> Callable[[Numbers], Numbers]:
    """accuracy, loss, ece, macro F1; then precision, recall and F1 of each class."""
    right = (predicted == label).astype(np.float64)
    sure, loss = confidence.astype(np.float64), loss.astype(np.float64)

    def of(weights: Numbers) -> Numbers:
        total, hit = weights.sum(), weights * right
        there, said, hits = (_counted(*each, count) for each in ((label, weights), (predicted, weights), (label, hit)))
        gap = np.bincount(bins, weights * sure - hit, BINS)
        f1 = share(2 * hits, there + said)
        known = ~np.isnan(f1)
        overall = [hit.sum() / total, (weights * loss).sum() / total, np.abs(gap).sum() / total, f1[known].mean()]
        return np.concatenate((overall, share(hits, said), share(hits, there), f1))

    return of


def _counted(places: Any, weights: Numbers, count: int) -> Numbers:
    return np.bincount(places, weights, count).astype(np.float64)


def _reliability(confidence: Any, right: Any, bins: Any) -> list[dict[str, float]]:
    """Of the bins in which there is a sample."""
    counts = np.bincount(bins, minlength=BINS)
    sure, hits = np.bincount(bins, confidence, BINS), np.bincount(bins, right, BINS)
    return [
        {"from": each / BINS, "to": (each + 1) / BINS, "samples": int(counts[each])}
        | {"confidence": float(sure[each] / counts[each]), "accuracy": float(hits[each] / counts[each])}
        for each in range(BINS)
        if counts[each]
    ]


def _class_table(titles: Sequence[str], support: Any, by_class: Sequence[Sequence[Metric]]) -> Table:
    rows: list[list[str]] = []
    for each, title in enumerate(titles):
        cells = [f"{shown(of[each].value)} {between(of[each])}".strip() for of in by_class]
        rows.append([title, f"{support[each]:,}", *cells])
    return Table(
        "Classes",
        ("class", "samples", "precision", "recall", "F1"),
        rows,
        "With 95 % intervals; – where a class was never found, or is not there.",
    )


def _confusion(titles: Sequence[str], confusion: Any) -> list[Heat | Table]:
    apart = confusion.copy()
    np.fill_diagonal(apart, 0)
    order = np.argsort(apart, axis=None, kind="stable")[::-1][:PAIRS]
    places = [divmod(int(each), len(titles)) for each in order if apart.flat[each]]
    rows = [
        [titles[row], titles[column], f"{confusion[row, column]:,}", f"{confusion[row, column] / confusion[row].sum():.1%}"]
        for row, column in places
    ]
    made: list[Heat | Table] = []
    if len(titles) <= MOST_NAMED:
        note = "Each row is a class, and its cells the shares of what its samples were taken for."
        made.append(Heat("confusion", "Confusion matrix", "found", "class", titles, confusion.tolist(), note))
    if rows:
        made.append(Table("Mixed up most", ("class", "taken for", "samples", "of the class"), rows, is_broad=False))
    return made


def _calibration(reliability: Sequence[dict[str, float]], ece: Metric) -> list[Chart]:
    sure = [each["confidence"] for each in reliability]
    note = f"Expected calibration error {shown(ece.value)} {between(ece)}, {BINS} bins (Guo et al., 2017). "
    note += "On the diagonal a model is as often right as it is sure."
    hits = Series("accuracy of a bin", sure, [each["accuracy"] for each in reliability], "points")
    middles = [(each["from"] + each["to"]) / 2 for each in reliability]
    counts = Series("samples", middles, [float(each["samples"]) for each in reliability], "bars")
    return [
        Chart("reliability", "Reliability", "how sure (highest probability)", "how often right", [hits._replace(kind="line")], True, note),
        Chart("confidence", "How sure it is", "highest probability", "samples", [counts]),
    ]


def _mistakes(rows: Rows, titles: Sequence[str]) -> list[Gallery]:
    """Pictures of those that cost most, and of those of which it was surest."""
    made: list[Gallery] = []
    for name, title in (("worst", "Worst mistakes: the highest loss"), ("surest", "Most confident mistakes")):
        best = most(rows, name, MISTAKES)
        shown_: list[Picture] = []
        for image, place, by in zip(best.get("image", ()), best.get("place", ()), best.get("by", ()), strict=True):
            label, predicted = titles[int(rows["label"][place])], titles[int(rows["predicted"][place])]
            figure = f"loss {float(by):.2f}" if name == "worst" else f"{float(by):.1%} sure"
            shown_.append(Picture(pictures.png(image), f"{label}, taken for {predicted}; {figure}; sample {int(place)}"))
        if shown_:
            made.append(Gallery(title, shown_))
    return made
