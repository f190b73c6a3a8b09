"""Classes that come equally often: exactly, in every epoch, whatever world or technique asks for them."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data.cifar10 import CIFAR10
from data.resident import Resident
from data.sampling.balance import balanced_order, check, labels_of
from data.workers import Workers

LABELS = np.array([7] * 70 + [2] * 25 + [3] * 4 + [5])
"""Of four classes, that are numbered with gaps; one has a single sample."""


def test_in_every_epoch_classes_differ_by_one_draw_at_most_and_in_all_too() -> None:
    labels, total = LABELS[:-2], Counter[int]()
    for epoch in range(5):
        order = balanced_order(labels, 3, epoch)
        assert len(order) == len(labels) == 98
        counts = Counter(labels[order].tolist())
        assert max(counts.values()) - min(counts.values()) <= 1
        total += counts
        assert max(total.values()) - min(total.values()) <= 1
    assert set(total) == {2, 3, 7}


def test_no_sample_of_a_class_comes_again_before_all_others_of_it_have_come() -> None:
    """Over epochs: of 70 samples, 25 an epoch. A rare one comes about as often as any other of its class."""
    seen: dict[int, Counter[int]] = {label: Counter() for label in (7, 2, 3, 5)}
    for epoch in range(7):
        for place in balanced_order(LABELS, 0, epoch).tolist():
            seen[int(LABELS[place])][place] += 1
        for label, counts in seen.items():
            often = [counts[place] for place in np.flatnonzero(label == LABELS).tolist()]
            assert max(often) - min(often) <= 1
            assert sum(often) == 25 * (epoch + 1)


def test_an_order_is_a_function_of_seed_and_epoch_that_no_release_changes() -> None:
    orders = [balanced_order(LABELS, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4
    assert (balanced_order(LABELS, 1, 0) == orders[2]).all()
    assert hashlib.sha256(orders[3].tobytes()).hexdigest()[:16] == "0abdb80a86a6502e"


class Rare:
    """What is asked for is told, and nothing is decoded to know a class."""

    def __init__(self, says: str = "labels") -> None:
        if says:
            setattr(self, says, LABELS.tolist())

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[float, int]:
        return float(index), int(LABELS[index])


def steps(made: Any, epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> list[list[int]]:
    made.open(SimpleNamespace(dp_rank=rank, dp_size=world), "cpu")
    try:
        return [batch[0].int().tolist() for batch in made.steps(epoch, start)]
    finally:
        made.close()


def resident(data: Any, **more: Any) -> Resident:
    return Resident(data, **{"batch_size": 12, "accumulate": 1, "seed": 4, "balance": "classes", **more})


def workers(data: Any, **more: Any) -> Workers:
    return Workers(data, **{"batch_size": 12, "accumulate": 1, "seed": 4, "balance": "classes", "num_workers": 0, **more})


@pytest.mark.parametrize("technique", [resident, workers])
def test_techniques_and_worlds_agree_and_a_resume_goes_on(technique: Any) -> None:
    whole = steps(resident(Rare()), 1)
    assert len(whole) == 6  # of the 80 that are left to train on, as without
    counts = Counter(int(LABELS[place]) for batch in whole for place in batch)
    assert counts[7] < 30
    assert steps(technique(Rare("targets")), 1) == whole
    assert steps(technique(Rare()), 1, start=4) == whole[4:]
    shares = [steps(technique(Rare()), 1, rank=rank, world=2) for rank in range(2)]
    assert [one + other for one, other in zip(*shares, strict=True)] == whole


def test_only_what_is_trained_on_is_counted() -> None:
    made = resident(Rare(), val=0.3, test=0)
    made.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    held_out = [int(place) for batch in made.evaluation("val") for place in batch[0]]
    assert len(made.labels()) == 70
    assert Counter(made.labels().tolist()) + Counter(LABELS[held_out].tolist()) == Counter(LABELS.tolist())


def test_images_on_the_device_say_their_labels(root: Path, tmp_path: Path) -> None:
    data = CIFAR10(root=str(root), cache=str(tmp_path / "cache"), validation=10)
    made = Resident(data, batch_size=10, accumulate=1, seed=0, balance="classes")
    made.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    known = made.labels()
    assert len(known) == 60
    drawn = torch.cat([batch[1] for batch in made.steps(0)])
    assert torch.bincount(drawn, minlength=10).tolist() == [6] * 10
    assert np.bincount(known, minlength=10).tolist() != [6] * 10


@pytest.mark.parametrize("technique", [resident, workers])
def test_a_set_that_says_no_classes_is_one_line(technique: Any) -> None:
    with pytest.raises(ValueError, match=r"^data: Rare does not say which class .* add an attribute `labels`, .*$"):
        steps(technique(Rare("")), 0)
    wrong = Rare()
    wrong.labels = LABELS[:-1]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="has something else there than which class each of its 100 samples is"):
        steps(technique(wrong), 0)


@pytest.mark.parametrize("said", [[0.5, 1.0], [-1, 0], [[0], [1]], "ab"])
def test_what_are_no_classes(said: Any) -> None:
    with pytest.raises(ValueError, match="has something else"):
        labels_of("Set", said, 2)


def test_what_cannot_be_balanced_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^loader\.balance=even: not possible; type one of none, classes$"):
        check("even")
    with pytest.raises(ValueError, match=r"^loader\.balance=classes: .* type loader\.window=0$"):
        workers(Rare(), window=5)
