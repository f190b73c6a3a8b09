"""Samples that are shuffled in windows, shard by shard: each comes once, near the others of its window, and at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toyproject.squares import Squares

from data.sampling.order import Windowed
from data.workers import Workers


def opened(data: Any, rank: int = 0, size: int = 1, **more: Any) -> Workers:
    """Without processes."""
    loader = Workers(data, num_workers=0, **{"batch_size": 4, "accumulate": 1, "seed": 3, **more})
    loader.open(SimpleNamespace(dp_rank=rank, dp_size=size), "cpu")
    return loader


class Sharded(Squares):
    """Four shards of a hundred samples, or of other sizes; the first number of a sample is its own."""

    def __init__(self, *shards: int) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return sum(self.shards)

    def __getitem__(self, index: int) -> Any:
        return index, np.zeros(2)


def test_samples_of_a_window_lie_near_and_each_comes_once() -> None:
    sizes = (100, 50, 150, 100)
    loader = opened(Sharded(*sizes), batch_size=10, val=0.0, test=0.0, window=20)
    first, second = ([batch[0].tolist() for batch in loader.steps(epoch)] for epoch in (0, 1))
    for epoch in (first, second):
        assert sorted(number for batch in epoch for number in batch) == list(range(400))
        ends = np.cumsum(sizes)
        shards = [set(np.searchsorted(ends, [*one, *two], side="right").tolist()) for one, two in zip(epoch[::2], epoch[1::2], strict=True)]
        assert all(len(each) <= 2 for each in shards), "a window has samples of one shard, or of two that follow each other"
        assert epoch[0] != sorted(epoch[0])
    assert first != second
    assert [batch[0].tolist() for batch in loader.steps(1, 33)] == second[33:], "what comes later does not hang on what came before"
    halves = [opened(Sharded(*sizes), rank, 2, batch_size=10, val=0.0, test=0.0, window=20) for rank in range(2)]
    joined = [[*one[0].tolist(), *two[0].tolist()] for one, two in zip(*(half.steps(0) for half in halves), strict=True)]
    assert joined == first


def test_a_window_of_what_has_no_shards_and_of_what_is_held_out() -> None:
    numbers = [batch[0].tolist() for batch in opened(Sharded(400), val=0.0, test=0.0, window=8, batch_size=8).steps(0)]
    assert all(max(each) - min(each) == 7 for each in numbers)
    held = opened(Sharded(100, 100, 200), val=0.2, test=0.1, window=16, batch_size=16)
    places = [number for batch in held.steps(0) for number in batch[0].tolist()]
    assert len(places) == len(set(places)) == 272
    assert not {*places} & {number for batch in held.evaluation("val") for number in batch[0].tolist()}
    with pytest.raises(ValueError, match=r"loader.window=-1: not possible"):
        opened(Sharded(400), window=-1)


def test_of_a_hundred_million_samples_one_step_is_made_at_once() -> None:
    order = Windowed(np.full(10_000, 10_000), 50_000, 1, 2)
    assert len(order) == 100_000_000
    cut = order[99_999_990:]
    assert len({*cut.tolist()}) == 10
    assert np.array_equal(order[49_995:50_005], np.concatenate((order[49_995:50_000], order[50_000:50_005])))


@pytest.mark.parametrize("shards", [["a.tar", "b.tar"], [200, 100], [500, -100], [[1], [2, 3]], len, [200.0, 200.0]])
def test_shards_that_are_no_counts_are_refused_before_a_step(shards: Any) -> None:
    with pytest.raises(ValueError, match=r"loader.window: Misled.shards is not how many samples each shard has, 400 together; mend it"):
        opened(Misled(shards), 0, window=8)
    opened(Misled(shards), 0)


class Misled(Squares):
    """Has another thing by that name."""

    def __init__(self, shards: Any) -> None:
        self.shards = shards

    def __len__(self) -> int:
        return 400
