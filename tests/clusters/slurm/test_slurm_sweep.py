"""A sweep is one array: submitted at once, resumed member by member, collected at the end."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path

import pytest
from batch_jobs import Batch
from helpers import Launch, refused_process
from processes import events, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


def submit(batch: Batch, *words: str) -> Path:
    done = batch("-m", *batch.words, *words, timeout=120)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def members(sweep: Path) -> list[Path]:
    return [Path(member["run"]) for member in json.loads((sweep / "sweep.json").read_text())["members"]]


def wait_until_over(batch: Batch, sweep: Path, seconds: float) -> None:
    wait_for(lambda: f".{sweep.name}." not in batch.cluster.slurm("squeue", "--noheader", "--format=%j"), seconds, "the end of the array")


def counts(batch: Batch, sweep: Path) -> str:
    return next(line for line in batch("status", sweep.name).stdout.splitlines() if " members: " in line)


@pytest.mark.parametrize("size", [8, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_two_members_die_and_resume_runs_exactly_these(batch: Batch, size: int) -> None:
    sweep = submit(batch, "id=sweep", "train.steps=5", f"optim.lr=range(1,{size + 1})", "cluster.throttle=12")
    runs = members(sweep)
    victims = [runs[2], runs[size - 3]]
    jobs = {run: str(events(run, "queued")[-1]["job"]) for run in runs}
    assert len(runs) == size
    assert {job.split("_")[0] for job in jobs.values()} == {jobs[runs[0]].split("_")[0]}, "one array"
    for victim in victims:
        wait_for(
            lambda victim=victim: (victim / "attempts").exists() and list((victim / "attempts").glob("000")), 1500, f"the start of {victim}"
        )
        batch.cluster.slurm("scancel", "--signal=KILL", jobs[victim])
    wait_until_over(batch, sweep, 2000)
    assert all((run / "job.log").stat().st_size for run in runs), "a log is missing"
    assert f"{size - 2} done" in counts(batch, sweep)

    before = {run: len(events(run, "queued")) for run in runs}
    done = batch("resume", "sweep")
    assert done.returncode == 0, done.stderr
    assert {run for run in runs if len(events(run, "queued")) > before[run]} == set(victims)
    wait_until_over(batch, sweep, 300)
    assert f"{size} done" in counts(batch, sweep)
    assert all((run / "summary.json").exists() for run in runs)
    check_collected(batch, sweep, size)


def check_collected(batch: Batch, sweep: Path, size: int) -> None:
    done = batch("collect", "sweep")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((sweep / "collected.csv").read_text().splitlines()))
    best = [float(row["val_accuracy"]) for row in rows]
    assert len(rows) == size
    assert best == sorted(best, reverse=True)
    assert {row["optim.lr"] for row in rows} == {str(number) for number in range(1, size + 1)}
    assert in_tensorboard(sweep) == {str(number) for number in range(size)}
    assert [row["number"] for row in json.loads((sweep / "collected.json").read_text())] == [int(row["number"]) for row in rows]


def test_two_hundred_members_are_submitted_at_once(batch: Batch) -> None:
    """Held, so that none runs. How long it takes is printed (pytest -s), and recorded in benchmarks/README.md."""
    began = time.monotonic()
    sweep = submit(batch, "id=held", "optim.lr=range(1,201)", "+cluster.sbatch.hold=true")
    print(f"200 members submitted in {time.monotonic() - began:.2f} s")
    assert len(members(sweep)) == 200
    queued = batch.cluster.slurm("squeue", "--noheader", "--array", "--format=%i %j").splitlines()
    assert len([line for line in queued if line.endswith("toy.held.0")]) == 200
    done = batch("cancel", "held")
    assert "200 jobs" in done.stdout


def test_an_array_is_split_where_the_cluster_wants_it_split(batch: Batch) -> None:
    batch.cluster.set("MaxArraySize=5")
    try:
        sweep = submit(batch, "id=split", "optim.lr=range(1,13)", "+cluster.sbatch.hold=true")
    finally:
        batch.cluster.set()
    assert sorted(path.name for path in (sweep / "arrays").iterdir()) == ["0", "1", "2"]
    arrays = [re.search(r"--array=(\S+)", (path / "array.sh").read_text())[1] for path in sorted((sweep / "arrays").iterdir())]
    assert arrays == ["0-4", "0-4", "0-1"]
    batch("cancel", "split")


def test_a_mistake_in_one_member_submits_none(batch: Batch, launch: Launch) -> None:
    done = batch("-m", *batch.words, "id=wrong", "optim.lr=0.1,-1")
    refused_process(done, 2, "optim.lr=-1")
    assert not (batch.home / "runs" / ".sweeps").exists()


def test_members_that_ask_for_other_nodes_get_an_array_of_their_own(batch: Batch) -> None:
    sweep = submit(batch, "id=nodes", "cluster.nodes=1,2", "optim.lr=0.1,0.2", "+cluster.sbatch.hold=true")
    heads = [re.search(r"--nodes=(\d+)", (path / "array.sh").read_text())[1] for path in sorted((sweep / "arrays").iterdir())]
    assert heads == ["1", "2"]
    batch("cancel", "nodes")


def in_tensorboard(sweep: Path) -> set[str]:
    """Members whose hyperparameters TensorBoard's own reader finds below the sweep's logdir."""
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    board = EventMultiplexer().AddRunsFromDirectory(str(sweep / "tb")).Reload()
    return {run for run, tags in board.PluginRunToTagToContent("hparams").items() if "_hparams_/session_start_info" in tags}
