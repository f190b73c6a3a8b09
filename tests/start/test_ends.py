"""How an attempt ended stays what it was; a start that is refused leaves no trace; a clean stop is called one."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Answer
from made_runs import Made
from processes import assert_gone, descendants, finish, losses, running, start, toy_words, wait_for

from launcher.clusters import attend
from launcher.errors import ConfigError, Interrupted, RankLost, RunError, Stopped
from launcher.rundir import lock
from launcher.rundir.rundir import RunDir
from launcher.start import launch
from launcher.start.rendered import mark
from launcher.verdict.standing import standing

SLOW = {"TOY_STEP_SECONDS": "0.02"}


def run_of(home: Path) -> RunDir:
    return RunDir(home / "runs" / "toy" / "a")


def kept(run: RunDir, attempt: int = 0) -> dict[str, bytes]:
    """What an attempt left, to the byte."""
    return {path.name: path.read_bytes() for path in sorted(run.attempt(attempt).iterdir()) if path.is_file()}


def attempts(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.attempts.iterdir())


def why(home: Path) -> list[str]:
    return finish(home, ["why", "a"]).stdout.splitlines()


def refused_thrice(home: Path, words: list[str]) -> None:
    """A second and third `resume`, and the command itself again, all at once."""
    others = [start(home, each) for each in (["resume", "a"], words, ["resume", "a", "cluster.processes_per_node=2"])]
    for process in others:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err.count("\n")) == (3, 1), err
        assert "is being trained by" in err


def test_a_stop_stays_a_stop_and_refused_starts_leave_no_trace(tmp_path: Path) -> None:
    run, words = run_of(tmp_path), toy_words(tmp_path / "runs", "id=a", "train.steps=300")
    with running(tmp_path, words, **SLOW) as process:
        wait_for(lambda: lock.is_held(run.launcher), what="the launcher")
        frozen = {path.name: path.read_bytes() for path in (run.plan, run.script, run.config)}
        assert standing(run).word == "starting"
        refused_thrice(tmp_path, words)  # rank 0 has not begun, and has no lock yet
        wait_for(lambda: max(losses(run.path), default=0) > 2, what="a few steps")
        refused_thrice(tmp_path, words)
        assert standing(run).word == "running"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75
    assert (attempts(run), standing(run).word) == (["000", "latest"], "stopped")
    assert [event["event"] for event in run.read_events()] == ["submitted", "started", "stopped"]
    assert {path.name: path.read_bytes() for path in (run.plan, run.script, run.config)} == frozen
    left = kept(run)
    assert left["outcome"] == b"stopped file\n"

    script = run.script.read_text()
    run.script.write_text(script.replace("--nproc-per-node=1", "--nproc-per-node=2"))
    run.log_event("rendered", script=mark(run.script.read_text()))  # else the launcher would refuse it first
    failed = finish(tmp_path, ["resume", "a"])  # each worker refuses the world it finds
    assert (failed.returncode, "planned for a world of 1" in failed.stderr) == (1, True), failed.stderr
    run.script.write_text(script)
    assert (attempts(run), standing(run).word) == (["000", "latest"], "stopped")
    assert len(run.read_events()) == 4

    done = finish(tmp_path, ["resume", "a"])
    assert done.returncode == 0, done.stderr
    assert "restarts: 1 stopped" in done.stdout
    again = finish(tmp_path, ["resume", "a"])
    assert (again.returncode, attempts(run), kept(run)) == (0, ["000", "001", "latest"], left)
    shown = why(tmp_path)
    assert shown[0] == "verdict    done: all 300 steps, in 2 attempts"
    assert next(line for line in shown if line.startswith("0 ")).split(maxsplit=3)[3].startswith("stopped and saved as the STOP file asked")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "a closed terminal"])
def test_a_stop_before_rank_0_has_begun_is_a_clean_one_too(number: signal.Signals, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    with running(tmp_path, toy_words(tmp_path / "runs", "id=a", "train.steps=100000"), **SLOW) as process:
        wait_for(lambda: lock.is_held(run.launcher), what="the launcher")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == (130 if number == signal.SIGINT else 75), err
        assert "and saved" in err
    assert standing(run).word == "stopped"
    assert why(tmp_path)[0].startswith("verdict    stopped and saved")


@pytest.mark.slow
def test_a_second_ctrl_c_interrupts_and_that_stays_the_end_of_the_attempt(tmp_path: Path) -> None:
    run, words = run_of(tmp_path), ("id=a", "cluster.processes_per_node=2", "train.steps=300", "train.save_every=5")
    with running(tmp_path, toy_words(tmp_path / "runs", *words), **SLOW) as process:
        wait_for(lambda: max(losses(run.path), default=0) > 8, what="a checkpoint")
        tree = descendants(process.pid)
        os.kill(next(pid for pid in _workers(run)), signal.SIGSTOP)  # it would save and stop before the second one
        for _ in range(2):  # two pending signals would be one
            process.send_signal(signal.SIGINT)
            wait_for(run.stop.exists, what="the first Ctrl-C")
        _, err = process.communicate(timeout=20)
        assert (process.returncode, "stopped at once" in err) == (130, True)
        assert_gone(tree, 2)
    assert standing(run).word == "interrupted"
    assert why(tmp_path)[0] == "verdict    interrupted: told to stop, it ended before it had saved"
    left = kept(run)
    done = finish(tmp_path, ["resume", "a"])
    assert (done.returncode, "restarts: 1 interrupted" in done.stdout, kept(run)) == (0, True, left)


def _workers(run: RunDir) -> list[int]:
    """Who holds the lock says its pid in it."""
    return [int(run.lock.read_text().split("pid ")[1])]


# ---------------------------------------------------------------- from files alone


@pytest.mark.parametrize(
    ("ended", "outcome", "word", "verdict"),
    [
        ("stopped", "stopped file", "stopped", "stopped and saved as the STOP file asked"),
        ("", "stopped signal", "stopped", "stopped and saved as a signal asked"),
        ("", "stopped deadline", "stopped", "stopped and saved before the time limit"),
        ("interrupted", "", "interrupted", "interrupted: told to stop"),
        ("", "", "dead", "killed: no process of it is left"),
        ("requeued-killed", "", "dead", "it ended and left no word of why"),
    ],
)
def test_the_word_for_an_attempt_is_in_its_directory_alone(
    ended: str, outcome: str, word: str, verdict: str, tmp_path: Path, command: Callable[..., Answer]
) -> None:
    made = Made(tmp_path, batch=False)
    place = made.run.attempt(0)
    place.mkdir()
    for name, text in (("ended", ended), ("outcome", outcome)):
        if text:
            (place / name).write_text(f"{text}\n")
    assert standing(made.run).word == word
    assert command("why", str(made.path)).out.splitlines()[0].removeprefix("verdict    ").startswith(verdict)
    made.run.attempt(1).mkdir()
    made.event("started", attempt=1)
    made.run.summary.write_text(json.dumps({"state": "failed", "attempt": 1, "error": "another's"}))
    row = next(line for line in command("why", str(made.path)).out.splitlines() if line.startswith("0 "))
    assert verdict in row


def test_done_stays_done_whoever_tried_since(tmp_path: Path) -> None:
    made = Made(tmp_path, batch=False)
    made.run.summary.write_text('{"state": "done", "attempt": 0}')
    for number in range(2):
        made.run.attempt(number).mkdir()
    made.run.error(1).write_text("{}")
    assert standing(made.run).word == "done"


def test_what_a_done_run_cannot_change_is_said_and_not_passed_over() -> None:
    with pytest.raises(ConfigError, match=r"resume train\.epochs=3: only where a run runs can change"):
        launch.go_on(RunDir("/nowhere"), ["train.epochs=3"])


@pytest.mark.parametrize(("interrupts", "kind"), [(1, Interrupted), (0, Stopped)])
def test_a_stop_between_two_attempts_ends_the_run_and_not_the_attempt(
    interrupts: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path, batch=False)
    made.run.attempt(0).mkdir()

    def lost(run: RunDir, plan: object, cluster: object, signals: attend._Signals) -> None:
        os.kill(os.getpid(), signal.SIGINT if interrupts else signal.SIGHUP)  # as if it came right behind the attempt
        raise RankLost("rank 1 was killed by SIGKILL")

    monkeypatch.setattr(attend, "_attempt", lost)
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever started the tests by nohup
    try:
        with pytest.raises(kind, match="stopped between two attempts"):
            attend.attend(made.run, made.run.read_plan(), type("Any", (), {"requeue": True})())  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert ((made.run.attempt(0) / "ended").read_text(), standing(made.run).word) == ("requeued-killed\n", "interrupted")


def test_an_older_attempt_that_had_the_same_pid_is_not_ours(tmp_path: Path) -> None:
    """Of a container the first process after the shell has the same number each time."""
    made = Made(tmp_path, batch=False)
    for number in range(2):
        made.run.attempt(number).mkdir()
        (made.run.attempt(number) / "agent.pid").write_text("17\n")
    assert (made.run.attempt_of(17), made.run.attempt_of(17, after=1), made.run.attempt_of(18)) == (1, None, None)


def test_a_run_that_one_may_not_write_is_a_line(tmp_path: Path) -> None:
    run = Made(tmp_path, batch=False).run
    run.launcher.mkdir()  # root may write everything else
    with pytest.raises(RunError, match="cannot be written"), lock.alone(run.lock, run.launcher):
        raise AssertionError
