"""When attempts that go nowhere end, whoever starts the next one, and when an attempt stops for the next one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from batch_shell import Shell
from processes import events, finish, losses, toy_words

from launcher.clusters.slurm.values import seconds_of
from launcher.node import __main__ as node
from launcher.node.pulse import EVALUATION, SAVE
from launcher.rundir.rundir import RunDir
from launcher.train.stop import Deadline
from launcher.verdict import headway

LIMIT = {"ended": "requeued-limit", "lasted": "580"}
OTHERS = "in a row ended (hung, hung, hung) with less than a tenth of their time in training"


def leave(shell: Shell, count: int, **files: str) -> None:
    """Attempts that each left one more checkpoint."""
    for number in range(count):
        shell.attempt(number, **files)
    (shell.run / "checkpoints" / f"step_{count:09d}").mkdir()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({**LIMIT, "trained": "5 0.50"}, "in a row reached their time limit of 600 s with less than a tenth of it in training"),
        ({**LIMIT, "trained": "5 90"}, "in a row reached their time limit of 600 s"),
        ({"ended": "requeued-hung", "lasted": "360", "trained": "2.0 1.0"}, OTHERS),
        ({"ended": "requeued-hung", "lasted": "360"}, OTHERS),
        ({"ended": "requeued-hardware", "lasted": "40", "trained": "0.5 0.50"}, "(hardware, hardware, hardware)"),
    ],
    ids=["start-up", "slow steps", "hangs", "one step", "hardware"],
)
def test_three_attempts_that_hardly_trained_end_the_job(shell: Shell, files: dict[str, str], told: str) -> None:
    """Each saved a step, so each left a new checkpoint."""
    leave(shell, 3, **files)
    status, said = shell.start()
    assert status == 1
    assert told in said
    assert told in str(shell.events("stuck")[0]["reason"])


@pytest.mark.parametrize(("trained", "least"), [("5 0.50", 2875), ("5 90", 2875), ("5 400", 4575), ("", 2900)])
def test_the_time_that_is_advised_is_mostly_training(shell: Shell, trained: str, least: int) -> None:
    """Five times what is no training, and ten steps at least."""
    leave(shell, 3, **LIMIT, trained=trained)
    advised = re.search(r"in a new run: cluster\.time=([\d:]+)", shell.start()[1])
    assert advised is not None
    assert least <= seconds_of(advised[1]) < least + 60


@pytest.mark.parametrize(
    "files",
    [
        {**LIMIT, "trained": "60"},
        {"ended": "requeued-limit", "lasted": "200", "trained": "3"},
        {"ended": "requeued-preempted", "lasted": "580", "trained": "3"},
        {"ended": "requeued-node", "lasted": "580", "trained": "3"},
        {**LIMIT, "trained": "3", "job": "6"},
        {"ended": "requeued-limit", "trained": "3"},
        {"ended": "requeued-limit", "lasted": "x[$(touch bad)]", "trained": "0x1"},
    ],
    ids=["trained a tenth", "warned early", "preempted", "node", "another job", "of an older launcher", "garbage"],
)
def test_others_go_on(shell: Shell, files: dict[str, str]) -> None:
    leave(shell, 9, **files)
    status, said = shell.start()
    assert status == 0, said


def test_two_go_on_and_so_does_a_run_whose_third_trained(shell: Shell) -> None:
    for number in range(4):
        shell.attempt(number, **LIMIT, trained="300" if number == 1 else "0")
    (shell.run / "checkpoints" / "step_000000004").mkdir()
    status, said = shell.start()
    assert status == 0, said


@pytest.mark.parametrize(
    ("ended", "many"), [("requeued-killed", 3), ("requeued-limit", 3), ("requeued-preempted", 10), ("taken", 10), ("", 10)]
)
def test_attempts_without_a_new_checkpoint(shell: Shell, ended: str, many: int) -> None:
    """However long they trained for it; ten, where the scheduler ended them."""
    for number in range(many):
        assert headway.stuck(RunDir(shell.run), range(number)) == ""
        shell.attempt(number, ended=ended, lasted="100", trained="90", checkpoint="")
    told = f"{many} attempts in a row brought no new checkpoint (newest: none)"
    assert headway.stuck(RunDir(shell.run), range(many)) == told


def test_where_the_batch_host_has_no_python_the_first_node_judges(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it is with containers."""
    leave(shell, 3, ended="requeued-hung", lasted="360", trained="2")
    shell.stubs += 'srun() { env >"$run/seen"; }\n'
    shell.start(container="apptainer", image="i.sif", container_python="no-such-python")
    seen = dict(line.split("=", 1) for line in (shell.run / "seen").read_text().splitlines() if "=" in line)
    for name in ("LAUNCHER_LIMIT", "LAUNCHER_ATTEMPT", "LAUNCHER_HEAD"):
        monkeypatch.setenv(name, seen[name])
    monkeypatch.setenv("SLURM_NODEID", "0")
    assert node.main(["", str(shell.run), "false"]) == 4
    assert OTHERS in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.parametrize("ends", ["SIGKILL", pytest.param("hang", marks=pytest.mark.full)])
def test_attempts_here_that_gain_a_step_each_end_the_run(tmp_path: Path, ends: str) -> None:
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=40", "train.save_every=1", "train.hang_seconds=2")
    done = finish(tmp_path, words, TOY_ENDS_AFTER=f"2 {ends}")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "3 attempts in a row ended" in last
    assert "with less than a tenth of their time in training (newest checkpoint: step_00000000" in last
    run = tmp_path / "runs" / "toy" / "a"
    assert len(events(run, "started")) == 3
    assert max(losses(run)) >= 3


# ---------------------------------------------------------------- when to stop


class Time:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.time", lambda: self.now)

    def step(self, deadline: Deadline, seconds: float, **outside: float) -> None:
        for name, spent in outside.items():
            with deadline.outside({"evaluation": EVALUATION, "save": SAVE}[name]):
                self.now += spent
        self.now += seconds
        assert not deadline.is_near()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def test_start_up_is_no_step(clock: Time, tmp_path: Path) -> None:
    deadline = Deadline(end=1600.0, trained=tmp_path / "trained")
    clock.step(deadline, 300)  # decoding, compiling the first step
    deadline.note()
    assert (tmp_path / "trained").read_text() == "0.0 0.00\n"
    steps = 0
    while not deadline.is_near():
        clock.now += 2
        steps += 1
    assert steps > 130
    assert 1600 - 20 < clock.now < 1600
    deadline.note()
    assert (tmp_path / "trained").read_text() == f"{2 * steps:.1f} 2.00\n"
    again = Deadline(end=1600.0, trained=tmp_path / "trained")  # torchrun has started it once more
    clock.step(Deadline(None), 100)
    again.note()
    assert (tmp_path / "trained").read_text().startswith(f"{2 * steps:.1f} ")


def test_what_is_no_step_is_expected_only_where_it_comes(clock: Time) -> None:
    deadline = Deadline(end=9000.0)
    for seconds, outside in [(300, {}), (40, {}), (1, {}), (2, {}), (60, {"evaluation": 400}), (1, {"save": 30}), (1, {})]:
        clock.step(deadline, seconds, **outside)
    assert deadline.lead() == 2 + Deadline.AIR_SECONDS
    assert deadline.lead(1) == 2 + 400 + 58 + Deadline.AIR_SECONDS  # it compiled, and the step behind it
    for _ in range(2):
        clock.step(deadline, 1.5, evaluation=20)
    assert deadline.lead() == 2 + Deadline.AIR_SECONDS
    assert deadline.lead(1) == 2 + 20 + Deadline.AIR_SECONDS
    assert deadline.lead(2) == 2 + 40 + Deadline.AIR_SECONDS
    deadline.saved(5)
    assert deadline.lead() == 2 + 15 + Deadline.AIR_SECONDS


def test_with_others_a_stop_comes_a_step_later(clock: Time) -> None:
    deadline = Deadline(end=9000.0, reach=2)
    for seconds in (300, 9, 50, 3, 50):
        clock.step(deadline, seconds)
    assert deadline.lead() == 100 + Deadline.AIR_SECONDS


def test_a_new_attempt_knows_what_an_evaluation_takes(clock: Time) -> None:
    deadline = Deadline(end=9000.0)
    deadline.evaluations.expect(400)
    assert deadline.lead(1) == 400 + Deadline.AIR_SECONDS
    clock.step(deadline, 1, evaluation=30)
    deadline.evaluations.expect(400)  # going back within an attempt unlearns nothing
    assert deadline.lead(1) == 30 + Deadline.AIR_SECONDS
