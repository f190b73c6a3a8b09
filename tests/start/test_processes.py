"""Signals, deaths and races of real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import (
    PROJECT,
    assert_gone,
    descendants,
    environment,
    events,
    finish,
    lines,
    losses,
    running,
    start,
    toy_words,
    wait_for,
    worker_of,
)

from launcher.clusters.script import TORCHRUN
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.start.rendered import mark

ENDLESS = ("id=a", "train.steps=1000000", "cluster.processes_per_node=2", "train.save_every=50")


def run_of(home: Path) -> Path:
    return home / "runs" / "toy" / "a"


def wait_for_training(home: Path, attempts: int = 1) -> None:
    wait_for(lambda: len(events(run_of(home), "started")) == attempts, what="the start")
    first = events(run_of(home), "started")[-1]["step"]
    wait_for(lambda: max(losses(run_of(home)), default=0) > first + 2, what="a few steps")


def test_ctrl_c_saves_and_stops_and_resume_goes_on_from_there(tmp_path: Path) -> None:
    with running(tmp_path, toy_words(tmp_path / "runs", *ENDLESS)) as process:
        wait_for_training(tmp_path)
        tree = descendants(process.pid)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - began < 10
        assert process.returncode == 130
        assert err.count("\n") == 1
        assert "saved" in err
        assert "launcher resume" in err
        assert_gone(tree)
    step = json.loads((run_of(tmp_path) / "summary.json").read_text())["steps"]
    assert max((run_of(tmp_path) / "checkpoints").iterdir()).name == f"step_{step:09d}"
    with running(tmp_path, ["resume", str(run_of(tmp_path))]):
        wait_for_training(tmp_path, attempts=2)
    assert events(run_of(tmp_path), "started")[1]["step"] == step


@pytest.mark.slow
def test_a_storm_of_signals_makes_one_final_checkpoint(tmp_path: Path) -> None:
    with running(tmp_path, toy_words(tmp_path / "runs", *ENDLESS)) as process:
        wait_for_training(tmp_path)
        workers = [
            child
            for child in descendants(process.pid)
            if "launcher.train.worker" in child.cmdline() and "--max-restarts=0" not in child.cmdline()
        ]
        assert len(workers) == 2
        for _ in range(50):
            for worker in workers:
                worker.send_signal(signal.SIGUSR2)
                worker.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 75
    assert len(events(run_of(tmp_path), "stopped")) == 1
    summary = json.loads((run_of(tmp_path) / "summary.json").read_text())
    assert summary["state"] == "stopped"


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["launcher", "torchrun"])
def test_sigkill_leaves_no_orphan(tmp_path: Path, victim: str) -> None:
    with running(tmp_path, toy_words(tmp_path / "runs", *ENDLESS, "cluster.requeue=false")) as process:
        wait_for_training(tmp_path)
        tree = descendants(process.pid)
        assert len(tree) == 4  # torchrun, two workers, their watchdog
        if victim == "launcher":
            process.kill()
            process.wait()
        else:
            next(child for child in tree if TORCHRUN in child.cmdline()).kill()
            _, err = process.communicate(timeout=10)
            assert process.returncode == 1
            assert "SIGKILL" in err
        assert_gone(tree, 2)


@pytest.mark.slow
def test_a_killed_rank_is_named_and_nothing_waits_for_it(tmp_path: Path) -> None:
    with running(tmp_path, toy_words(tmp_path / "runs", *ENDLESS, "cluster.requeue=false")) as process:
        wait_for_training(tmp_path)
        worker_of(process, rank=1).kill()
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert err.count("\n") == 1
        assert "rank 1" in err
        assert "resume" in err or "Connection" in err


KILLED = ("cluster.processes_per_node=2", "train.save_every=13", "train.steps=400", "train.batch_size=16")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of the run that nobody kills."""
    home = tmp_path_factory.mktemp("whole")
    done = finish(home, toy_words(home / "runs", "id=a", *KILLED))
    assert done.returncode == 0, done.stderr
    return losses(run_of(home))


@pytest.mark.slow
@pytest.mark.parametrize("by", [("cluster.max_restarts=2", "cluster.requeue=false"), ()], ids=["torchrun", "the launcher"])
def test_a_killed_rank_comes_back_by_itself(tmp_path: Path, whole: dict[int, float], by: tuple[str, ...]) -> None:
    with running(tmp_path, toy_words(tmp_path / "runs", "id=a", *KILLED, *by)) as process:
        wait_for(lambda: max(losses(run_of(tmp_path)), default=0) > 60, what="60 steps")
        before = losses(run_of(tmp_path))
        worker_of(process, rank=1).kill()
        killed = time.monotonic()
        wait_for(lambda: len(events(run_of(tmp_path), "started")) == 2, what="the second start")
        wait_for(lambda: max(losses(run_of(tmp_path))) >= max(before), what="training again")
        print(f"training again {time.monotonic() - killed:.1f} s after the kill")
        _, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
    assert losses(run_of(tmp_path)) == whole
    assert before.items() <= whole.items()


@pytest.mark.slow
def test_three_attempts_without_a_new_checkpoint_end_the_run(tmp_path: Path) -> None:
    """Each is killed at its first save."""
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=40", "train.save_every=5")
    done = finish(tmp_path, words, LAUNCHER_CRASH_AT="before_save:0:1")
    assert done.returncode == 1
    assert (
        "3 attempts in a row brought no new checkpoint (newest: none); the last of them: rank 0 was killed by SIGKILL"
        in done.stderr.splitlines()[-1]
    )
    assert len(events(run_of(tmp_path), "started")) == 3


def test_an_exception_is_one_line_with_rank_host_and_step(tmp_path: Path) -> None:
    failed = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", "loader.fail_at=12", "cluster.processes_per_node=2"))
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert f"rank 1 on {os.uname().nodename} failed at step 12: RuntimeError: the toy broke on purpose" in failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "Traceback" in (run_of(tmp_path) / "attempts" / "000" / "rank_1.log").read_text()
    report = json.loads((run_of(tmp_path) / "attempts" / "000" / "error.json").read_text())
    assert (report["rank"], report["step"], report["exception"]) == (1, 12, "RuntimeError")


def test_a_worker_refuses_a_smaller_world_than_promised(tmp_path: Path) -> None:
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=1", "cluster.processes_per_node=2")
    assert finish(tmp_path, words).returncode == 0
    (run_of(tmp_path) / "summary.json").unlink()
    run = RunDir(run_of(tmp_path))
    write_atomic(run.script, run.script.read_text().replace("--nproc-per-node=2", "--nproc-per-node=1"))
    run.log_event("rendered", script=mark(run.script.read_text()))
    refused = finish(tmp_path, ["resume", str(run_of(tmp_path))])
    assert refused.returncode == 1
    assert "planned for a world of 2" in refused.stderr
    assert "nothing was trained" in refused.stderr


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LAUNCHER_ATTEMPT"])
def test_a_worker_started_with_garbage_says_which_variable(tmp_path: Path, name: str) -> None:
    good = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LAUNCHER_ATTEMPT": "0", "TORCHELASTIC_RESTART_COUNT": "0"}
    worker = subprocess.run(
        [sys.executable, "-m", "launcher.train.worker", str(tmp_path)],
        env=environment(tmp_path, **{**good, name: "abc"}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert worker.returncode == 2
    assert worker.stderr.splitlines() == [f"launcher: {name}='abc' is no whole number; start workers by the run's job.sh, not by hand"]


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_of_two_submits_of_one_run_exactly_one_trains(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=300", "train.batch_size=16")
    for _ in range(many(2, 12, 50)):
        both = [start(tmp_path, words), start(tmp_path, words)]
        ended = [(process.communicate(timeout=90), process.returncode) for process in both]
        codes = sorted(code for _, code in ended)
        assert codes in ([0, 3], [0, 0])  # refused while the other trains, or told that it is done already
        for (_, err), code in ended:
            if code == 3:
                assert err.count("\n") == 1
                assert "is being trained by" in err
        assert [line["step"] for line in lines(run_of(tmp_path) / "metrics.jsonl") if line["split"] == "train"] == list(range(1, 301))
        assert len(events(run_of(tmp_path), "started")) == 1
        (run_of(tmp_path)).rename(tmp_path / f"kept-{time.monotonic_ns()}")


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.full
@pytest.mark.timeout(180)
def test_without_the_lock_both_train(tmp_path: Path) -> None:
    """The guard taken out: what the test above looks at must then show it."""
    without = tmp_path / "without"
    without.mkdir()
    (without / "sitecustomize.py").write_text(
        "import contextlib\nfrom launcher.rundir import lock\nlock.hold = lambda *args: 0\n"
        "lock.alone = lambda *args: contextlib.nullcontext()\n"
    )
    paths = f"{without}:{environment(tmp_path)['PYTHONPATH']}"
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=300", "train.batch_size=16")
    both = [start(tmp_path, words, PYTHONPATH=paths, TOY_STEP_SECONDS="0.03") for _ in range(2)]
    for process in both:
        process.communicate(timeout=150)
    assert len(events(run_of(tmp_path), "started")) == 2


@pytest.mark.slow
def test_training_outlives_a_reader_that_goes_away(tmp_path: Path) -> None:
    """`launcher … | head -1`."""
    with running(tmp_path, toy_words(tmp_path / "runs", "id=a", "train.steps=300")) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(timeout=60)
    assert json.loads((run_of(tmp_path) / "summary.json").read_text())["state"] == "done"


@pytest.mark.slow
def test_a_reader_that_takes_nothing_more_does_not_keep_the_next_attempt_waiting(tmp_path: Path) -> None:
    """A terminal after Ctrl-S, a pager left open: the pipe is full long before the rank is killed."""
    with running(tmp_path, toy_words(tmp_path / "runs", *ENDLESS)) as process:
        wait_for(lambda: max(losses(run_of(tmp_path)), default=0) > 1500, what="1,500 lines")
        worker_of(process, rank=1).kill()
        wait_for_training(tmp_path, attempts=2)
        process.send_signal(signal.SIGINT)
        wait_for((run_of(tmp_path) / "STOP").exists, what="the stop")
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err


@pytest.mark.slow
def test_damaged_checkpoints_fall_back_are_named_and_never_start_over_in_silence(tmp_path: Path) -> None:
    words = toy_words(tmp_path / "runs", "id=a", "train.steps=40", "train.save_every=15")
    assert finish(tmp_path, words).returncode == 0
    before = losses(run_of(tmp_path))
    (run_of(tmp_path) / "summary.json").unlink()
    _flip(run_of(tmp_path) / "checkpoints" / "step_000000040" / "model.safetensors")
    fallen_back = finish(tmp_path, ["resume", str(run_of(tmp_path))])
    assert fallen_back.returncode == 0
    assert "step_000000040 is damaged and passed over" in fallen_back.stdout
    assert "resumed from step_000000030" in fallen_back.stdout
    assert losses(run_of(tmp_path)) == before

    (run_of(tmp_path) / "summary.json").unlink()
    for checkpoint in (run_of(tmp_path) / "checkpoints").glob("step_*"):
        _flip(checkpoint / "optimizer.safetensors")
    refused = finish(tmp_path, words)
    assert refused.returncode == 3
    assert refused.stderr.count("\n") == 1
    assert "resume=never" in refused.stderr
    over = finish(tmp_path, [*words, "resume=never"])
    assert over.returncode == 0
    assert losses(run_of(tmp_path)) == before
    assert len(list(run_of(tmp_path).glob("checkpoints.old-*"))) == 1


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_toy_is_a_users_own_package(tmp_path: Path) -> None:
    """Trusted by name in a file; without that line its targets are refused before they are imported."""
    conf = shutil.copytree(PROJECT / "conf", tmp_path / "conf") / "exp"
    toy = (PROJECT / "conf" / "exp" / "toy.yaml").read_text()
    (conf / "doubtful.yaml").write_text(toy.replace("trust: [toyproject]\n", ""))
    refused = finish(tmp_path, ["--config-dir", str(tmp_path / "conf"), "+exp=doubtful", f"runs_dir={tmp_path / 'runs'}"])
    assert refused.returncode == 2
    assert "trust: [toyproject]" in refused.stderr
    assert not (tmp_path / "runs").exists()
