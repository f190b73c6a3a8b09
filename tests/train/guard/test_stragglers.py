"""A slow rank is named within 50 steps, and none in a clean run."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import events, finish, toy_words

from launcher.train.guard.stragglers import STEPS, Stragglers

WORDS = ("id=a", "cluster.processes_per_node=2", "train.steps=30", "train.log_every=25")


@pytest.mark.slow
def test_a_slow_rank_is_named_within_50_steps(tmp_path: Path) -> None:
    """That none is in a clean run is looked at in tests/node/test_watchdog.py."""
    done = finish(tmp_path, toy_words(tmp_path / "runs", *WORDS), TOY_SLOW_RANK="1")
    assert done.returncode == 0, done.stderr
    told = events(tmp_path / "runs" / "toy" / "a", "slow_rank")
    assert [event["step"] for event in told] == [25]
    assert told[0]["why"].startswith("rank 1 is slow: 2")
    assert "warning: rank" in done.stdout


def test_who_is_slow() -> None:
    def judge(own: list[float], step: float, steps: int = 50) -> str:
        return stragglers.judge([steps * each for each in own], steps * step, steps)

    stragglers = Stragglers()
    assert judge([0.1], 0.2) == ""
    stragglers = Stragglers()
    assert judge([0.1, 0.12, 0.11], 0.2) == ""
    assert judge([0.01, 0.02, 0.01], 0.5) == "", "twice as slow, and nobody waits long for it"
    assert judge([0.1, 0.1, 0.3], 0.4, steps=STEPS - 1) == "", "too few steps to tell"
    assert judge([0.1, 0.1, 0.3], 0.4, steps=1).startswith("rank 2 is slow: 300 ms a step for data and forward pass, the others 100 ms")
    assert judge([0.1, 0.1, 0.3], 0.4) == "", "told already"
    assert judge([0.3, 0.1, 0.1], 0.4).startswith("rank 0")
