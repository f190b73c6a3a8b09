"""CIFAR-10 on two nodes of two processes from one command, and what the verbs say of it while the scheduler knows better."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from batch_jobs import ON_SLURM, Batch, last_step
from processes import events, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(900)]


def tensorboard_steps(run: Path, tag: str) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0})
    board.Reload()
    return [event.step for event in board.Scalars(tag)]


def test_two_nodes_of_two_processes(batch: Batch, shared_data: Path, environment: dict[str, str]) -> None:
    words = (
        "+exp=cifar",
        f"data.root={shared_data}",
        f"runs_dir={batch.home / 'runs'}",
        *ON_SLURM,
        "cluster.nodes=2",
        "cluster.processes_per_node=2",
    )
    four = ("cluster.nodes=2", "cluster.processes_per_node=2", "id=four")
    done = batch(*words, *four, "train.steps=60", "train.log_every=1", "train.eval_every=0", "train.save_every=25", timeout=120)
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    job = batch.job(run)
    follower = subprocess.Popen(
        [sys.executable, "-m", "launcher", "logs", str(run), "-f"],
        env={**environment, **batch.cluster.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        batch.wait_for_step(run, 10, seconds=300)
        agrees_while_running(batch, run, job)
        batch.cluster.slurm("scontrol", "requeue", job)
        batch.finish(run, 600)
        shown = follower.communicate(timeout=60)[0]
    finally:
        if follower.poll() is None:
            follower.send_signal(signal.SIGKILL)
        follower.wait()
    assert "--- attempt 1" in shown
    assert "step 60/60" in shown
    assert tensorboard_steps(run, "train/loss") == list(range(1, 61))
    assert [event["attempt"] for event in events(run, "started")] == [0, 1]
    assert json.loads((run / "summary.json").read_text())["world"].startswith("2 nodes x 2 processes")
    assert "done" in batch("status", str(run)).stdout
    assert "done" in batch("why", str(run)).stdout


def agrees_while_running(batch: Batch, run: Path, job: str) -> None:
    state, nodes = batch.cluster.slurm("squeue", "--noheader", "--format=%T %N", "--jobs", job).split()
    row = next(line for line in batch("status", str(run)).stdout.splitlines() if line.startswith(f"cifar/{run.name}"))
    assert (state, "running" in row, nodes in row) == ("RUNNING", True, True)
    assert re.search(r" \d+/60 ", row)
    assert "it runs, at step" in batch("why", str(run)).stdout


def test_cancel_agrees_with_the_scheduler(batch: Batch) -> None:
    run = batch.submit("cluster.nodes=2", "train.steps=100000", "id=ends")
    batch.wait_for_step(run, 20)
    batch("cancel", str(run))
    wait_for(lambda: batch.state(run) == "CANCELLED", 60, "the end of the job")
    seen = last_step(run)
    assert "cancelled" in batch("status", str(run)).stdout
    assert re.search("cancel", batch("why", str(run)).stdout)
    assert last_step(run) == seen
    assert (run / "checkpoints").is_dir()
