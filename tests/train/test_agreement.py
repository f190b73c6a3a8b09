"""When ranks ask each other: at the same steps, however unlike their steps are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from launcher.train.world.agreement import MOST_STEPS, Agreement


class Message:
    """Complete when both ranks have sent theirs."""

    def __init__(self) -> None:
        self.sent: list[torch.Tensor] = []

    def wait(self) -> None:
        assert len(self.sent) == 2, "a rank waits for a message that the other has not sent"


class Two:
    """Ranks in one process."""

    size = 2

    def __init__(self) -> None:
        self._open: Message | None = None

    def begin_max(self, flag: torch.Tensor) -> Message:
        message, self._open = (self._open, None) if self._open else ((opened := Message()), opened)
        message.sent.append(flag)
        if len(message.sent) == 2:
            most = torch.maximum(*message.sent)
            for each in message.sent:
                each.copy_(most)
        return message


def asked(monkeypatch: pytest.MonkeyPatch, seconds: Any, steps: int) -> list[int]:
    """The steps at which two ranks ask, of which the second's steps take `seconds(step)`, the first's no time; the same for both."""
    clocks, ranks, found = [0.0, 0.0], Two(), list[int]()
    both = [Agreement(ranks), Agreement(ranks)]  # pyright: ignore[reportArgumentType]
    for step in range(1, steps + 1):
        clocks[1] += seconds(step)
        due = [each.is_due(step) for each in both]
        assert due[0] == due[1]
        if due[0]:
            found.append(step)
            for rank, each in enumerate(both):
                monkeypatch.setattr("time.monotonic", lambda rank=rank: clocks[rank])
                each.exchange(step, 0)
    return found


def test_short_steps_ask_ever_more_rarely_and_never_more_so_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = asked(monkeypatch, lambda step: 1e-4, 200)
    apart = [after - before for before, after in itertools.pairwise(steps)]
    assert apart == sorted(apart)
    assert apart[-1] == MOST_STEPS


def test_the_slower_rank_decides_and_steps_of_a_fiftieth_second_ask_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, lambda step: 0.02, 50) == list(range(1, 51))


def test_steps_that_grow_longer_ask_each_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = asked(monkeypatch, lambda step: 1e-4 if step < 100 else 1.0, 200)
    assert steps[-20:] == list(range(181, 201))


def test_what_one_rank_says_both_know_at_the_next_exchange() -> None:
    ranks = Two()
    first, second = Agreement(ranks), Agreement(ranks)  # pyright: ignore[reportArgumentType]
    assert (first.exchange(1, 3, 0), second.exchange(1, 0, 7)) == ([0, 0], [0, 0])
    assert (first.exchange(2, 0, 0), second.exchange(2, 0, 0)) == ([3, 7], [3, 7])
    assert first.settle()[:2] == second.settle()[:2] == [0, 0]
