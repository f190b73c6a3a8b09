"""Order, split and draws are functions of (seed, epoch, index); eval shares are a partition."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from data.sampling.order import epoch_order, share, split
from data.vision.augment import draws


def test_an_order_is_a_permutation_that_changes_with_seed_and_epoch() -> None:
    orders = [epoch_order(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(1000))
    assert len({order.tobytes() for order in orders}) == 4
    assert (epoch_order(1, 1, 1000) == orders[3]).all()


def test_the_streams_are_the_ones_of_every_release() -> None:
    """A resumed run must see what its first attempt saw: these values may never change."""
    assert epoch_order(3, 5, 12).tolist() == [3, 6, 7, 2, 5, 4, 11, 10, 0, 1, 9, 8]
    train, val = split(12, 4, seed=7)
    assert (train.tolist(), val.tolist()) == ([0, 6, 1, 2, 10, 8, 11, 4], [7, 9, 5, 3])
    table = draws(3, 5, 1000, pad=4, flip=True, height=32, width=32)
    assert hashlib.sha256(np.stack(table).tobytes()).hexdigest()[:16] == "68447b658207085b"


@pytest.mark.parametrize("validation", [0, 1, 30, 99])
def test_the_parts_are_disjoint_complete_and_nested(validation: int) -> None:
    train, val = split(100, validation, seed=1)
    assert len(val) == validation
    assert sorted([*train, *val]) == list(range(100))
    assert set(val) <= set(split(100, 99, seed=1)[1])
    if validation > 1:
        assert set(val) != set(split(100, validation, seed=2)[1]) or validation == 99


@pytest.mark.parametrize("validation", [-1, 100, 2000])
def test_a_split_that_leaves_nothing_is_refused(validation: int) -> None:
    with pytest.raises(ValueError, match=rf"^data\.validation={validation}: there are 100 .* from 0 to 99$"):
        split(100, validation, seed=0)


@pytest.mark.parametrize("world", [1, 2, 3, 7, 150])
@pytest.mark.parametrize("n", [0, 1, 100, 10_000])
def test_shares_cover_every_sample_once_and_evenly(n: int, world: int) -> None:
    shares = [range(n)[share(n, rank, world)] for rank in range(world)]
    assert [i for part in shares for i in part] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_every_image_is_mirrored_in_one_of_two_epochs() -> None:
    one, two, three = (draws(4, epoch, 1000, pad=0, flip=True, height=8, width=8).flip for epoch in (0, 1, 2))
    assert (one + two == 1).all()
    assert (one == three).all()
    assert 400 < one.sum() < 600


def test_draws_reach_every_choice_about_equally_often() -> None:
    table = draws(0, 0, 100_000, pad=4, flip=True, height=32, width=24)
    for column, choices in zip(table, (9, 9, 2, 32, 24), strict=True):
        counts = np.bincount(column, minlength=choices)
        assert len(counts) == choices
        assert abs(counts / 100_000 * choices - 1).max() < 0.08  # 4 deviations of the rarest choice
    assert np.corrcoef(np.stack(table))[np.triu_indices(5, 1)].max() < 0.02


def test_draws_of_a_sample_do_not_depend_on_how_many_there_are() -> None:
    few, many = (draws(1, 2, n, pad=4, flip=True, height=32, width=32) for n in (10, 5000))
    for a, b in zip(few, many, strict=True):
        assert (a == b[:10]).all()
    assert not draws(1, 2, 50, pad=0, flip=False, height=32, width=32).flip.any()
