"""Disks that are full or read-only: below the checkpoints they end a run with one line; below what is only looked at, charts and logs, they
do not stop training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from processes import events, finish, lines, losses, needs_root, running, small_disk, toy_words, wait_for

WORDS = ("id=a", "train.steps=400", "train.batch_size=16", "train.save_every=50", "cluster.processes_per_node=2")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(200), needs_root]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a run was stopped early."""
    home = tmp_path_factory.mktemp("begun")
    run = home / "runs" / "toy" / "a"
    with running(home, toy_words(home / "runs", *WORDS), TOY_STEP_SECONDS="0.02") as process:
        wait_for(lambda: max(losses(run), default=0) > 10, what="10 steps")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    return home


@pytest.fixture
def stopped(tmp_path: Path, begun: Path) -> Path:
    """A copy of the run, to go on, and of what its user has said there."""
    shutil.copytree(begun, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "runs" / "toy" / "a"


def check_done(run: Path, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "summary.json").read_text())["state"] == "done"
    assert [line["step"] for line in lines(run / "metrics.jsonl") if line["split"] == "train"] == list(range(1, 401))
    assert len(events(run, "started")) == 2


def test_charts_on_a_disk_that_fills_up(tmp_path: Path, stopped: Path) -> None:
    with small_disk(stopped / "tb", "size=16k"):
        done = finish(tmp_path, ["resume", str(stopped)], timeout=120)
        check_done(stopped, done)
        log = (stopped / "attempts" / "001" / "rank_0.log").read_text()
    assert log.count("warning: TensorBoard") == 1, log
    assert "No space left on device" in log


def test_charts_on_a_read_only_disk(tmp_path: Path, stopped: Path) -> None:
    with small_disk(stopped / "tb", "size=1m,ro"):
        done = finish(tmp_path, ["resume", str(stopped)], timeout=120)
        check_done(stopped, done)
    assert (stopped / "attempts" / "001" / "rank_0.log").read_text().count("warning: no TensorBoard") == 1


def test_logs_on_a_disk_that_fills_up(tmp_path: Path, stopped: Path) -> None:
    """Of every rank, and torchrun's own: what no longer fits is lost."""
    with small_disk(stopped / "attempts", "size=20k"):
        (stopped / "attempts" / "000").mkdir()
        done = finish(tmp_path, ["resume", str(stopped)], timeout=120)
        check_done(stopped, done)
        assert os.statvfs(stopped / "attempts").f_bavail == 0


def test_a_read_only_disk_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with small_disk(tmp_path / "fixed", "size=1m,ro"):
        done = finish(tmp_path, toy_words(tmp_path / "fixed" / "runs", *WORDS))
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "Read-only file system" in done.stderr
    assert "choose another with runs_dir=" in done.stderr


def test_a_full_disk_ends_the_run_with_one_line_and_the_checkpoint_before_loads(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "size=1500k") as small:
        words = ("id=a", "train.steps=200", "train.save_every=10", "train.log_every=5", "model.fill=40000")
        full = finish(tmp_path, toy_words(small, *words, "train.keep=9", "cluster.processes_per_node=2"))
        assert full.returncode == 3, full.stderr
        assert "No space left on device" in full.stderr
        assert full.stderr.count("\n") == 1
        run = small / "toy" / "a"
        assert list((run / "checkpoints").glob("step_*"))
        assert not list((run / "checkpoints").glob("tmp.*"))
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        again = finish(tmp_path, ["resume", str(run)])
        assert again.returncode == 0, again.stderr
        assert "resumed from step_" in again.stdout
