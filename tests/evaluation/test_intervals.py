"""Intervals and what they are of: known samples, and figures that others compute too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from launcher.evaluation import classes
from launcher.evaluation.bootstrap import intervals
from launcher.train.tasks.average_precision import Found, Matched, average_precision


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution_and_the_same_again() -> None:
    values = np.random.Generator(np.random.PCG64(5)).normal(3.0, 2.0, 4000)
    found = intervals(len(values), lambda weights: np.array([weights @ values / weights.sum()]))
    half = 1.96 * values.std() / len(values) ** 0.5
    assert found.value[0] == pytest.approx(values.mean())
    assert found.low[0] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high[0] == pytest.approx(values.mean() + half, abs=0.1 * half)
    again = intervals(len(values), lambda weights: np.array([weights @ values / weights.sum()]))
    assert (again.low, again.high) == (found.low, found.high)
    assert found.resamples == 1000


def test_intervals_hold_what_they_promise() -> None:
    """Of 200 samples of a coin that falls on its head 7 times in 10, about 95 of 100 intervals have 0.7 in them."""
    generator = np.random.Generator(np.random.PCG64(11))
    held = 0
    for _ in range(100):
        values = (generator.random(200) < 0.7).astype(np.float64)
        found = intervals(200, lambda weights, values=values: np.array([weights @ values / weights.sum()]))
        held += bool(found.low[0] <= 0.7 <= found.high[0])
    assert 88 <= held <= 100


def test_classes_are_as_scikit_learn_has_them_and_calibration_as_it_is_defined() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (500,), generator=generator)
    scores = torch.randn(500, 4, generator=generator) + 1.5 * torch.nn.functional.one_hot(labels, 4)
    taker = classes.Taker()
    taker.add(scores[:200], (torch.zeros(200, 5), labels[:200]), 0)
    taker.add(scores[200:], (torch.zeros(300, 5), labels[200:]), 200)
    found = classes.findings(taker.rows(), {"samples": 500}, ())
    predicted = scores.argmax(1)
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(labels, predicted)
    for place, entry in enumerate(found.details["classes"]):
        ours = [entry[name]["value"] for name in ("precision", "recall", "f1")]
        assert ours == pytest.approx([precision[place], recall[place], f1[place]])
        assert entry["support"] == support[place]
        assert entry["recall"]["low"] < entry["recall"]["value"] < entry["recall"]["high"]
    assert found.details["confusion"] == sklearn_metrics.confusion_matrix(labels, predicted).tolist()
    sure, right = scores.softmax(1).max(1).values, predicted == labels
    ece = 0.0
    for low in range(15):
        inside = (sure >= low / 15) & (sure < (low + 1) / 15)
        if inside.any():
            ece += float(inside.float().mean() * (sure[inside].mean() - right[inside].float().mean()).abs())
    assert found.metrics["ece"].value == pytest.approx(ece, abs=1e-6)


def test_a_class_that_is_nowhere_has_no_figure_and_breaks_none() -> None:
    taker = classes.Taker()
    taker.add(torch.eye(4)[:3] * 9, (torch.zeros(3, 5), torch.tensor([0, 1, 2])), 0)
    found = classes.findings(taker.rows(), {"accuracy": 1.0, "samples": 3}, ("a", "b"))
    assert np.isnan(found.details["classes"][3]["recall"]["value"])
    assert found.metrics["f1"].value == 1.0
    assert found.parts[0].rows[3] == ["3", "0", "–", "–", "–"]  # pyright: ignore


def test_an_image_that_weighs_two_is_there_twice_and_one_that_weighs_nothing_is_gone() -> None:
    generator = torch.Generator().manual_seed(2)

    def image() -> dict[str, torch.Tensor]:
        corner = torch.rand(6, 2, generator=generator) * 40
        true = torch.cat((corner, corner + 10 + 20 * torch.rand(6, 2, generator=generator)), 1)
        boxes = true + 4 * torch.rand(6, 4, generator=generator)
        order = torch.rand(6, generator=generator).sort(descending=True).values
        kinds = torch.randint(0, 2, (6,), generator=generator)
        part = {"boxes": boxes, "scores": order, "classes": kinds, "counts": torch.tensor([6]), "true_boxes": true}
        return {**part, "true_classes": kinds, "true_ignored": torch.zeros(6, dtype=torch.bool), "true_counts": torch.tensor([6])}

    parts = [image() for _ in range(5)]

    def found(places: list[int]) -> Found:
        return Found(**{name: torch.cat([parts[place][name] for place in places]) for name in Found._fields})

    weighted = Matched(found([0, 1, 2, 3, 4]), 2)(torch.tensor([2.0, 0.0, 1.0, 3.0, 1.0], dtype=torch.float64))
    assert torch.allclose(weighted, average_precision(found([0, 0, 2, 3, 3, 3, 4]), 2), equal_nan=True)
