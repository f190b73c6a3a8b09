"""When attempts that go nowhere end, and when an attempt stops for the next one."""

from __future__ import annotations

from pathlib import Path

import pytest
from batch_shell import Shell

from launcher.train.stop import Deadline


def test_three_attempts_that_hardly_trained_end_the_run(shell: Shell) -> None:
    """Each saved a step, so each left a new checkpoint: 300 s of start-up below a limit of ten minutes."""
    for number in range(3):
        shell.attempt(number, ended="requeued-limit", lasted="580", trained=str(5 * number))
    status, said = shell.start()
    assert status == 1
    assert "less than a tenth of it in training, the rest in start-up and saves; in a new run: a longer cluster.time" in said
    assert shell.events("stuck")


@pytest.mark.parametrize(
    "files",
    [
        {"ended": "requeued-limit", "lasted": "580", "trained": "60"},
        {"ended": "requeued-limit", "lasted": "200", "trained": "3"},
        {"ended": "requeued-preempted", "lasted": "580", "trained": "3"},
        {"ended": "requeued-limit", "lasted": "580", "trained": "3", "job": "6"},
        {"ended": "requeued-limit", "trained": "3"},
        {"ended": "requeued-limit", "lasted": "x[$(touch bad)]", "trained": "0x1"},
    ],
    ids=["trained a tenth", "warned early", "preempted", "another job", "of an older launcher", "garbage"],
)
def test_others_go_on(shell: Shell, files: dict[str, str]) -> None:
    for number in range(3):
        shell.attempt(number, **files)
    status, said = shell.start()
    assert status == 0, said


def test_two_go_on_and_so_does_a_run_whose_third_trained(shell: Shell) -> None:
    for number in range(4):
        shell.attempt(number, ended="requeued-limit", lasted="580", trained="300" if number == 1 else "0")
    status, said = shell.start()
    assert status == 0, said


# ---------------------------------------------------------------- when to stop


def test_start_up_is_no_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.time", lambda: now)
    deadline = Deadline(end=1600.0, trained=tmp_path / "trained")
    now += 300  # decoding, compiling the first step
    assert not deadline.is_near()
    deadline.note()
    steps = 0
    while not deadline.is_near():
        now += 2
        steps += 1
    assert steps > 130
    assert 1600 - 20 < now < 1600
    deadline.note()
    assert int((tmp_path / "trained").read_text()) == 2 * steps


def test_a_slow_step_is_still_expected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("time.time", lambda: now)
    deadline = Deadline(end=1000.0)
    for spent in (300, 1, 50, 1):  # start-up, a step, an evaluation
        now += spent
        assert not deadline.is_near()
    assert deadline.lead == 50 + Deadline.AIR_SECONDS
