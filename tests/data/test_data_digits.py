"""scikit-learn's digits: how they are shared out, and what is said where they are not."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from data.digits import Digits
from data.sampling.order import stratified


def test_without_scikit_learn_one_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match=r"^data=digits: .* not installed; pip install scikit-learn$"):
        Digits().prepare()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"validation": 1.0}, r"data\.validation=1\.0: not possible; type a share"),
        ({"test": 0.9}, r"data\.test=0\.9: with 0\.1 held out"),
        ({"pad": 8}, r"data\.pad=8"),
        ({"seed": -1}, r"data\.seed=-1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}"):
        Digits(**options)


def test_each_class_is_in_each_part_as_often_as_its_share() -> None:
    labels = np.random.default_rng(0).choice(4, 1000, p=(0.5, 0.3, 0.15, 0.05))
    val, test, train = parts = stratified(labels, (0.1, 0.2), seed=3)
    assert sorted(np.concatenate(parts)) == list(range(1000))
    assert (len(val), len(test), len(train)) == (100, 200, 700)
    for part, share in zip(parts, (0.1, 0.2, 0.7), strict=True):
        assert np.abs(np.bincount(labels[part]) - share * np.bincount(labels)).max() <= 2
        assert (np.diff(labels[part]) < 0).any(), "in shuffled order"
    again, other = stratified(labels, (0.1, 0.2), seed=3), stratified(labels, (0.1, 0.2), seed=4)
    assert (again[0] == val).all()
    assert set(other[0]) != set(val)


@pytest.mark.parametrize("seed", range(8))
def test_a_label_that_is_there_once_is_trained_on(seed: int) -> None:
    labels = np.array([0] * 30 + [1] * 30 + [2, 3])
    parts = stratified(labels, (0.1, 0.1), seed)
    assert {*labels[parts[-1]]} == {0, 1, 2, 3}
    assert sorted(np.concatenate(parts)) == [*range(62)]
    assert all(len(part) for part in stratified(np.arange(20), (0.1, 0.1), seed)), "no part is emptied for it"


def test_the_digits_are_pinned_and_a_worker_needs_no_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="needs the extra: pip install scikit-learn")
    pinned = Digits().prepare()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    data = Digits(**pinned)  # pyright: ignore[reportArgumentType]
    sources = {split: data.part(split, "cpu") for split in ("train", "val", "test")}
    assert {split: len(source.places) for split, source in sources.items() if source} == {"train": 1258, "val": 180, "test": 359}
    train = sources["train"]
    assert train is not None
    images, labels = train.batch(torch.from_numpy(train.places))
    assert images.shape == (1258, 1, 8, 8)
    assert abs(images.mean()) < 1e-5
    assert abs(images.std(correction=0) - 1) < 1e-5
    assert np.abs(np.bincount(labels) - 125.8).max() < 8
    assert Digits(validation=0, **pinned).part("val", "cpu") is None  # pyright: ignore[reportArgumentType]
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"^data\.fingerprint=0123…: scikit-learn's digits are others here"):
        Digits(fingerprint="0123").prepare()
