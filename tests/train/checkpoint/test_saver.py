"""When checkpoints are written by default: as often as loses least time, and never one right behind another."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from helpers import claimed
from processes import finish, toy_words

from launcher.train.checkpoint import saver
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.saver import FLOOR_SECONDS, Interval, Saver
from launcher.train.checkpoint.state import Parts
from launcher.train.checkpoint.stored import TrainState
from launcher.train.deadline import Deadline
from launcher.train.ema import NoEma
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter
from launcher.train.record.span import span
from launcher.train.world.ranks import Ranks


def test_the_interval_is_youngs() -> None:
    interval = Interval(None, 4 * 3600.0)
    assert interval.seconds == FLOOR_SECONDS
    interval.measured(cost=0.05, whole=1.0)
    assert interval.seconds == pytest.approx(math.sqrt(2 * 0.05 * 4 * 3600))
    interval.measured(cost=0.0, whole=0.1)
    assert interval.seconds == FLOOR_SECONDS
    interval.measured(cost=0.0, whole=90.0)
    assert interval.seconds == 90.0, "one at a time"


def test_by_step_or_by_time_but_not_both(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(saver.time, "monotonic", lambda: now[0])
    steps, seconds = Interval(7, 1.0), Interval(None, 1.0)
    now[0] += 2 * FLOOR_SECONDS
    assert [steps.by_step(14), steps.by_step(15), steps.by_time()] == [True, False, False]
    assert [seconds.by_step(14), seconds.by_time()] == [False, True]
    seconds.restart()
    assert not seconds.by_time()


class Queue:
    """Stands in for a GPU: filling its queue takes no time, and the copies in it take `SECONDS`. Kept until the thread asks."""

    SECONDS = 3.0

    def __init__(self, stream: torch.cuda.Stream | None) -> None:
        self.ended = False

    def end(self) -> None:
        self.ended = True

    def seconds(self) -> float:
        assert self.ended
        return self.SECONDS


def test_what_a_save_costs_is_what_the_device_does_and_not_how_fast_it_is_told(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    cpu = torch.device("cpu")
    parts = Parts(model, Optimizers([torch.optim.SGD(model.parameters(), lr=0.1)], model), None, NoEma(), Meter(cpu), cpu)
    intervals = {}
    for name, measure in (("device", Queue), ("host", span)):
        store = CheckpointStore(tmp_path / name, Ranks(0, 1), claimed(tmp_path), 0, 2)
        interval, deadline = Interval(None, 4 * 3600.0), Deadline(None)
        writer = Saver(store, interval, deadline, 0, measure)
        writer.begin(parts, TrainState(step=1))
        writer.wait()
        intervals[name] = interval.seconds
    assert intervals["device"] == pytest.approx(math.sqrt(2 * Queue.SECONDS * 4 * 3600), rel=0.05)
    assert intervals["host"] < 60


@pytest.mark.slow
def test_by_default_saves_are_apart(tmp_path: Path) -> None:
    words = ("id=a", "cluster.processes_per_node=2", "train.steps=100", "train.keep=99")
    done = finish(tmp_path, toy_words(tmp_path / "runs", *words), TOY_STEP_SECONDS="0.06")
    assert done.returncode == 0, done.stderr
    saved = sorted(int(path.name[5:]) for path in (tmp_path / "runs" / "toy" / "a" / "checkpoints").glob("step_*"))
    assert saved[-1] == 100
    assert len(saved) >= 2
    assert all(later - earlier >= 5 for earlier, later in itertools.pairwise(saved[:-1])), saved
