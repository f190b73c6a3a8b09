"""F1, top-k and the area under the curve: scikit-learn's numbers, and the same bits however a split is shared out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score, top_k_accuracy_score

from launcher.train.tasks.classification import Classification
from launcher.train.tasks.roc import areas, log_odds

SHARES = ((0, 0), (0, 1), (1, 90), (90, 200))
"""Of four ranks, of which one has nothing."""


def scored(classes: int, labels_of: int, ties: bool) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, labels_of, (200,), generator=draw)
    scores = torch.randn(200, classes, generator=draw)
    scores[torch.arange(200), labels] += 0.8
    return (scores * 2).round() / 2 if ties else scores, labels


def merged(task: Classification, whole: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    total = task.metrics()
    for begin, end in SHARES:
        rank = task.metrics()
        for at in range(begin, end, 7):
            rank.update(lambda x: x, tuple(each[at : min(end, at + 7)] for each in whole))  # pyright: ignore[reportArgumentType]
        total.merge(rank.state())
    return total.result()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 7])
def test_metrics_are_scikit_learns_and_the_same_on_any_ranks(classes: int, ties: bool) -> None:
    scores, labels = whole = scored(classes, classes, ties)
    names = ["f1", "auroc", *(["top3"] if classes > 3 else [])]
    found = merged(Classification(metrics=names), whole)
    predicted, y = scores.argmax(1).numpy(), labels.numpy()
    assert found["f1"] == pytest.approx(f1_score(y, predicted, average="macro"), abs=1e-12)
    if ties:  # of probabilities that are equal, rounding leaves some apart
        odds = log_odds(scores).numpy()
        expected = sum(roc_auc_score(y == label, odds[:, label]) for label in range(classes)) / classes
    elif classes == 2:
        expected = roc_auc_score(y, scores.double().softmax(1)[:, 1].numpy())
    else:
        expected = roc_auc_score(y, scores.double().softmax(1).numpy(), multi_class="ovr", average="macro")
        assert found["top3"] == pytest.approx(top_k_accuracy_score(y, scores.numpy(), k=3), abs=1e-12)
    assert found["auroc"] == pytest.approx(expected, abs=1e-12)
    (one := Classification(metrics=names).metrics()).update(lambda x: x, whole)
    alone = one.result()
    assert {name: alone[name] for name in names} == {name: found[name] for name in names}
    assert list(found) == ["loss", "accuracy", *sorted(names, key=("top3", "f1", "auroc").index), "samples"]


def test_by_hand_a_tie_is_half() -> None:
    """Of class 1 two, of class 0 three: six pairs, of which four are right and one is equal."""
    odds = torch.tensor([0.1, 0.5, 0.9, 0.5, 1.0])
    labels = torch.tensor([0, 0, 0, 1, 1])
    found = areas(torch.stack((torch.zeros(5), odds), 1), labels)
    assert found.tolist() == [pytest.approx((1 + 0.5 + 3) / 6)] * 2


def test_a_probability_that_rounds_to_one_is_no_tie() -> None:
    scores = torch.tensor([[60.0, 0, 0], [50.0, 0, 0], [45.0, 1, 0]])
    assert areas(scores, torch.tensor([0, 0, 1]))[0] == 1


class Page:
    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def matrix(self, tag: str, counts: torch.Tensor, names: Any, step: int) -> None:
        assert counts.sum() == 200

    def text(self, tag: str, text: str, step: int) -> None:
        self.texts[tag] = text


def test_a_class_that_is_not_in_the_split_is_left_out_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    scores, labels = whole = scored(4, 3, False)
    task, page = Classification(metrics=["auroc", "f1"]), Page()
    (metrics := task.metrics()).update(lambda x: x, whole)
    found = metrics.result()
    assert found["auroc"] == pytest.approx(areas(scores, labels)[:3].mean().item(), abs=1e-15)
    for _ in range(2):
        task.show_evaluation(page, metrics, "val", ("cat", "dog", "eel", "fox"), 5)
    said = "warning: val: auroc is the mean over 3 of 4 classes; of fox there is no sample, or nothing else\n"
    assert capsys.readouterr().out == said
    rows = page.texts["val/classes"].splitlines()
    assert rows[0] == "class | samples | f1 | auroc"
    assert rows[-1].startswith("fox | 0 | 0.0000 | none")
    assert len(rows) == 6


def test_what_costs_more_is_kept_only_where_it_is_asked_for() -> None:
    (metrics := Classification().metrics()).update(lambda x: x, scored(4, 4, False))
    assert list(metrics.state()) == ["sums"]
    assert list(metrics.result()) == ["loss", "accuracy", "samples"]


def test_a_top_that_is_always_right_is_refused() -> None:
    with pytest.raises(ValueError, match=r"task\.metrics: top5 of 4 classes is always right; leave it out"):
        Classification(metrics=["top5"]).metrics().update(lambda x: x, scored(4, 4, False))
