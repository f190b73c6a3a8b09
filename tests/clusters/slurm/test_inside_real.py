"""Runs in an allocation of a real scheduler: they end as on one machine, and whatever happens to them, the allocation stays as it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from batch_jobs import Batch, gone_within, last_step
from devcluster import DevCluster
from helpers import Started
from processes import events, finish, losses, toy_words, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]

Start = Callable[..., Started]
SHELL = {"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_MEM_PER_NODE": "1", "SLURM_NNODES": "2"}
"""What salloc leaves in its shell, and what would have a step wait or fail."""
LONG = ("train.steps=100000", "train.save_every=13", "train.batch_size=16")


class Room:
    """Two nodes of four CPUs and two GPUs."""

    def __init__(self, cluster: DevCluster, batch: Batch) -> None:
        argv = ["salloc", "--no-shell", "--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=2", "--gres=gpu:2", "--time=9"]
        done = subprocess.run(argv, env=batch_env(cluster), capture_output=True, text=True, timeout=60, check=True)
        granted = re.search(r"Granted job allocation (\d+)", done.stderr)
        assert granted, done.stderr
        self.number = granted[1]
        self.cluster = cluster
        self.env = {**cluster.env, **SHELL, "SLURM_JOB_ID": self.number}
        self.words = (*batch.words, "cluster.inside=true")

    @property
    def state(self) -> str:
        return self.cluster.squeue(self.number)


def batch_env(cluster: DevCluster) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}, **cluster.env}


@pytest.fixture
def room(devcluster: DevCluster, batch: Batch) -> Iterator[Room]:
    made = Room(devcluster, batch)
    yield made
    devcluster.cancel(made.number)
    gone_within(batch.processes, 20)


def in_steps(run: Path) -> list[psutil.Process]:
    """What trains for it, on any node."""
    found = (process for process in psutil.process_iter(["cmdline"]) if str(run) in " ".join(process.info["cmdline"] or ()))
    return [process for process in found if process.info["cmdline"][-3:-1] == ["-m", "launcher.train.worker"]]


def ranks(run: Path) -> list[psutil.Process]:
    return [process for process in in_steps(run) if "launcher.train.torchrun" not in process.info["cmdline"]]


def test_a_rank_is_killed_and_the_losses_are_those_of_one_machine(room: Room, batch: Batch, start: Start, tmp_path: Path) -> None:
    words = ("train.steps=900", "train.save_every=100", "train.batch_size=16")
    whole = finish(tmp_path, toy_words(tmp_path / "here", "id=whole", "cluster.processes_per_node=2", *words))
    assert whole.returncode == 0, whole.stderr
    run = tmp_path / "runs" / "toy" / "a"
    started = start(*room.words, *words, "id=a", env=room.env)
    wait_for(lambda: last_step(run) >= 120 and len(ranks(run)) == 2, 90, "step 120")
    ranks(run)[-1].kill()
    assert {"running", "starting"} & set(batch("status", str(run)).stdout.split()), "it goes on, whatever the allocation does"
    assert started.wait(120) == 0, started.err.read_text()
    assert "was killed by SIGKILL" in started.err.read_text()
    assert losses(run) == losses(tmp_path / "here" / "toy" / "whole")
    assert (events(run, "queued"), room.state) == ([], "RUNNING")


def test_two_beside_each_other_are_stopped_and_the_allocation_is_not_theirs(room: Room, batch: Batch, start: Start, tmp_path: Path) -> None:
    runs = [tmp_path / "runs" / "toy" / name for name in "ab"]
    one, other = (start(*room.words, *LONG, f"id={run.name}", env=room.env) for run in runs)
    for run in runs:
        wait_for(lambda run=run: last_step(run) >= 3, 120, f"step 3 of {run}")
    assert batch("cancel", str(runs[0])).returncode == 0
    assert one.wait(60) == 75, one.err.read_text()
    assert "stopped at step" in one.err.read_text()
    assert (other.poll(), room.state) == (None, "RUNNING")
    batch.cluster.slurm("scancel", room.number)
    assert other.wait(60) == 75, other.err.read_text()
    assert f"python -m launcher resume {runs[1]}" in other.err.read_text()
    assert "dead" not in batch("status", str(runs[1])).stdout


@pytest.mark.slow
def test_saved_by_ctrl_c_and_nothing_outlives_a_launcher(room: Room, start: Start, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "toy" / "a"
    for count, (number, code, words) in enumerate(
        ((signal.SIGINT, 130, (*room.words, *LONG, "id=a")), (signal.SIGKILL, -9, ("resume", str(run)))), 1
    ):
        began, process = last_step(run), start(*words, env=room.env)
        wait_for(lambda count=count, began=began: len(events(run, "started")) == count and last_step(run) > began + 3, 90, "steps")
        process.send_signal(number)
        assert process.wait(60) == code, process.err.read_text()
        gone_within(lambda: in_steps(run), 10)
        assert room.state == "RUNNING"
    assert events(run, "stopped")
    assert start("resume", str(run), "cluster.nodes=3", env=room.env).wait(60) == 4


def test_a_shell_that_is_a_step_itself(room: Room, environment: dict[str, str], tmp_path: Path) -> None:
    """It holds all CPUs and GPUs of its node, and is the first of two with a terminal for one of them."""
    words = " ".join((*room.words, "train.steps=2", "id=a", "cluster.processes_per_node=2"))
    shell = f'[ "$SLURM_PROCID" = 0 ] || exec sleep 100; export SLURM_PTY_PORT=1; exec "$PYTHON" -m launcher {words}'
    argv = ["srun", f"--jobid={room.number}", "-N2", "-n2", "--kill-on-bad-exit=1", "bash", "-c", f"({shell}); exit 9"]
    env = {**environment, **room.cluster.env, "PYTHON": sys.executable}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    assert done.stdout.rstrip().endswith(str(tmp_path / "runs" / "toy" / "a")), done.stdout + done.stderr
    assert "--overlap" in (tmp_path / "runs" / "toy" / "a" / "job.sh").read_text()
