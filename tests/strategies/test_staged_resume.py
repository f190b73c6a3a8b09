"""Runs in stages that end early: nobody is blamed who did nothing, and what goes on ends as if nothing had been."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import events, finish, lines, losses, toy_words
from split_runs import SPLITS

from launcher.rundir.rundir import RunDir
from launcher.verdict.diagnose import DEATH, diagnose

BATCH_NORM = ("model=resnet8", "model.num_classes=4", "model.width=8", "train.steps=10", "train.save_every=4")
NEAR = 1e-5


def words(home: Path, name: str, *more: str) -> list[str]:
    return toy_words(home / "runs", f"id={name}", *BATCH_NORM, *SPLITS["pp(2)"], *more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody ends."""
    home = tmp_path_factory.mktemp("whole")
    done = finish(home, words(home, "whole"), timeout=100)
    assert done.returncode == 0, done.stderr
    return home / "runs" / "toy" / "whole"


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_rank_that_is_killed_in_the_first_pass_is_no_fault_of_the_model(tmp_path: Path, whole: Path) -> None:
    done = finish(tmp_path, words(tmp_path, "killed", "task._target_=toyproject.killed.Killed"), timeout=150)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "toy" / "killed"
    report = json.loads((run / "attempts" / "000" / "error.json").read_text())
    assert (report["rank"], report["exception"], report["exit_code"]) == (0, "RuntimeError", 1), report
    assert "rank 1 was killed by SIGKILL" in done.stderr
    found = diagnose(RunDir(run), 0)
    assert (found.kind, found.rank) == (DEATH, 1)
    assert "strategy=pp" not in f"{report} {done.stderr} {found.verdict}"
    assert len(events(run, "started")) == 2
    assert losses(run) == losses(whole)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_statistics_of_batches_go_on_under_another_schedule_and_cut(tmp_path: Path, whole: Path) -> None:
    """Of a BatchNorm that is in the other process now, and of one that is where it was."""
    killed = finish(tmp_path, words(tmp_path, "moved", "cluster.requeue=false"), timeout=100, TOY_ENDS_AFTER="7 SIGKILL")
    assert killed.returncode == 1
    run = tmp_path / "runs" / "toy" / "moved"
    done = finish(tmp_path, ["resume", str(run), "strategy.schedule=gpipe", "strategy.cut=[stages.1]"], timeout=100)
    assert done.returncode == 0, done.stderr
    assert losses(run) == pytest.approx(losses(whole), rel=NEAR)
    assert judged(run) == pytest.approx(judged(whole), rel=NEAR)


def judged(run: Path) -> float:
    """The loss of the last evaluation, which has the statistics."""
    return [line["loss"] for line in lines(run / "metrics.jsonl") if line["split"] == "val"][-1]
