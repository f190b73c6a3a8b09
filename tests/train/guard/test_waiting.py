"""A device that waits for data is told of once, with what the loader does meanwhile."""

from __future__ import annotations

from launcher.train.guard.waiting import Waiting


def test_it_says_how_much_and_what_for() -> None:
    waiting = Waiting()
    assert waiting.judge(0.4, 1.0, 10, {"reading": 1.0, "decoding": 9.0}) == "", "too few steps to tell"
    line = waiting.judge(0.6, 1.0, 15, {"reading": 4.0, "decoding": 12.0})
    assert line == "50% of the time goes by waiting for data, of a step of 80 ms; the loader's own goes to decoding 75%, reading 25%"
    assert waiting.judge(9.0, 10.0, 100, {}) == "", "once"


def test_little_is_not_worth_a_word_and_what_was_before_counts_no_more() -> None:
    waiting = Waiting()
    assert waiting.judge(0.05, 1.0, 30, {"reading": 50.0, "decoding": 1.0}) == ""
    line = waiting.judge(0.2, 1.0, 30, {"reading": 51.0, "decoding": 4.0})
    assert line.endswith("the loader's own goes to decoding 75%, reading 25%")
    assert Waiting().judge(0.2, 1.0, 25, {}) == "20% of the time goes by waiting for data, of a step of 40 ms"


def test_a_worker_that_is_started_again_takes_nothing_away() -> None:
    waiting = Waiting()
    assert waiting.judge(0.05, 1.0, 30, {"reading": 50.0, "decoding": 1.0}) == ""
    assert waiting.judge(0.2, 1.0, 30, {"reading": 3.0, "decoding": 4.0}).endswith("decoding 100%, reading 0%")
