"""What a machine does to a process: it crashes, memory or descriptors run out, clocks jump, signals come at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import TWO, environment, events, finish, lines, losses, running, toy_words, wait_for
from test_kill import shards

SEED = 20261121
pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(240)]


def run_of(home: Path) -> Path:
    return home / "runs" / "toy" / "a"


@pytest.mark.parametrize(("what", "name"), [("segfault", "SIGSEGV"), pytest.param("abort", "SIGABRT", marks=pytest.mark.full)])
def test_a_crash_is_named_its_stack_is_kept_and_the_next_attempt_goes_on(tmp_path: Path, whole: Path, what: str, name: str) -> None:
    done = finish(tmp_path, toy_words(tmp_path / "runs", *TWO, f"loader.fault=[50,{what}]"))
    assert done.returncode == 0, done.stderr
    run = run_of(tmp_path)
    log = (run / "attempts" / "000" / "rank_1.log").read_text()
    assert "Fatal Python error" in log
    assert 'faulty.py", line' in log
    assert f"rank 1 was killed by {name}" in events(run, "requeued")[0]["reason"]
    assert losses(run) == losses(whole)


def test_the_interpreters_lock_held_for_ever_is_a_hang(tmp_path: Path, whole: Path) -> None:
    done = finish(tmp_path, toy_words(tmp_path / "runs", *TWO, "train.hang_seconds=3", "loader.fault=[50,lock]"))
    assert done.returncode == 0, done.stderr
    assert "rank 1 on" in events(run_of(tmp_path), "requeued")[0]["reason"]
    assert "hangs in data" in events(run_of(tmp_path), "requeued")[0]["reason"]
    assert losses(run_of(tmp_path)) == losses(whole)


def test_no_memory_is_said_in_these_words_and_not_tried_again(tmp_path: Path) -> None:
    done = finish(tmp_path, toy_words(tmp_path / "runs", *TWO, "loader.fault=[50,memory]"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "rank 1 on" in done.stderr
    assert "MemoryError" in done.stderr
    assert len(events(run_of(tmp_path), "started")) == 1
    why = finish(tmp_path, ["why", str(run_of(tmp_path))])
    assert "ran out of memory" in why.stdout


def with_files(limit: str, home: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "launcher", *toy_words(home / "runs", *TWO)]
    script = ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", *words]
    return subprocess.run(script, cwd=home, env=environment(home), capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("limit", [12, 63])
def test_too_few_descriptors_are_one_line(tmp_path: Path, limit: int) -> None:
    done = with_files(f"-n {limit}", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"launcher: a process may open {limit} files here and needs 64; type: ulimit -n 4096\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.full
@pytest.mark.parametrize("limit", ["-n 64", "-S -n 16"], ids=["as many as are needed", "a low limit that may be raised"])
def test_just_enough_descriptors(tmp_path: Path, limit: str) -> None:
    done = with_files(limit, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.full
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, whole: Path) -> None:
    """A day back, then two forward, between attempts; and the newest checkpoint is the oldest by the clock of its files."""
    shifted = tmp_path / "shifted"
    shifted.mkdir()
    (shifted / "sitecustomize.py").write_text(
        "import os, time\nnow = time.time\ntime.time = lambda: now() + float(os.environ.get('TOY_CLOCK', 0))\n"
    )
    paths = f"{shifted}:{environment(tmp_path)['PYTHONPATH']}"
    run, words = run_of(tmp_path), toy_words(tmp_path / "runs", *TWO)
    for attempt, jump in enumerate((0, -86_400)):
        with running(tmp_path, words, PYTHONPATH=paths, TOY_CLOCK=str(jump), TOY_STEP_SECONDS="0.02") as process:
            wait_for(lambda starts=attempt + 1: len(events(run, "started")) == starts, what="the start")
            first = events(run, "started")[-1]["step"]
            wait_for(lambda first=first: max(losses(run), default=0) > first + 10, what="some steps")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        for age, path in enumerate(sorted((run / "checkpoints").iterdir(), reverse=True)):
            os.utime(path, (time.time() - 9000 + age, time.time() - 9000 + age))
    done = finish(tmp_path, words, PYTHONPATH=paths, TOY_CLOCK="86400")
    assert done.returncode == 0, done.stderr
    assert losses(run) == losses(whole)
    assert shards(run) == shards(whole)
    summary = json.loads((run / "summary.json").read_text())
    assert 0 <= summary["effective"] <= 1
    assert summary["lost_seconds"] >= 0


@pytest.mark.timeout(900)
def test_signals_in_the_middle_of_evaluations_and_saves_lose_nothing(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    """Each step evaluates and saves, so that most of the time is spent there."""
    steps = many(60, 120, 120)
    words = (*TWO, f"train.steps={steps}", "train.save_every=1", "train.eval_every=1")
    whole = finish(tmp_path, toy_words(tmp_path / "whole", *words))
    assert whole.returncode == 0, whole.stderr
    rng, run, seen = random.Random(SEED), run_of(tmp_path), 0
    for number in range(many(2, 8, 20)):
        with running(tmp_path, toy_words(tmp_path / "runs", *words)) as process:
            wait_for(lambda seen=seen: max(losses(run), default=0) > seen + 2, what="some steps")
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(rng.choice((signal.SIGINT, signal.SIGTERM)))
            _, err = process.communicate(timeout=60)
            assert process.returncode in (75, 130), err
        seen = json.loads((run / "summary.json").read_text())["steps"]
        assert max((run / "checkpoints").glob("step_*")).name == f"step_{seen:09d}", f"stop {number}"
    done = finish(tmp_path, toy_words(tmp_path / "runs", *words))
    assert done.returncode == 0, done.stderr
    expected = tmp_path / "whole" / "toy" / "a"
    assert losses(run) == losses(expected)
    assert shards(run) == shards(expected)
    for split in ("train", "val"):
        seen_steps = [line["step"] for line in lines(run / "metrics.jsonl") if line["split"] == split]
        assert seen_steps == list(range(1, steps + 1)), split
    assert [event["replayed"] for event in events(run, "started")] == [0] * len(events(run, "started"))
