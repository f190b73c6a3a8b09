"""One bad night on a real scheduler: preemption, time limits, lost nodes, scancel. Whatever happens, the weights end up the same.

`make test-slurm` runs them all; CI those that are not marked slow.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import time
from pathlib import Path

import psutil
import pytest
from batch_jobs import Batch, gone_within, last_step
from processes import events, finish, losses, toy_words, wait_for
from test_kill import shards

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

SEED = 20261121
TWO_NODES = ("cluster.nodes=2", "cluster.processes_per_node=1")
SAVE_EVERY = 13
LONG = ("train.batch_size=16", f"train.save_every={SAVE_EVERY}", "train.eval_every=200")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on this machine, left alone: two processes, the same steps."""
    home = tmp_path_factory.mktemp("reference")
    words = toy_words(home / "runs", "id=whole", "cluster.processes_per_node=2", *LONG, "train.steps=1200")
    done = finish(home, words, timeout=200)
    assert done.returncode == 0, done.stderr
    return home / "runs" / "toy" / "whole"


def in_training(process: psutil.Process) -> bool:
    """Not its shell or srun, which wait for a scheduler that no longer speaks to them."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "torch" in " ".join(process.cmdline())
    except psutil.Error:
        return False  # it ended while it was looked at


def assert_equal(run: Path, whole: Path) -> None:
    """Every loss, every shard, every step once, one TensorBoard series."""
    assert losses(run) == losses(whole)
    assert shards(run) == shards(whole)
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [json.loads(line)["step"] for line in (whole / "metrics.jsonl").read_text().splitlines()]


def preempt(batch: Batch, run: Path, before: int = 0) -> None:
    """A job with priority takes all nodes for a moment. `before`: how often this run was preempted so far."""
    batch.cluster.slurm(
        "sbatch", "--partition=urgent", "--nodes=3", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1", cwd=batch.home
    )
    wait_for(lambda: len(events(run, "requeued")) > before or batch.state(run) == "PENDING", 60, "preemption")


def resumed_from(run: Path) -> list[int]:
    return [event["step"] for event in events(run, "started")][1:]


def stopped_at(run: Path) -> list[int]:
    return [event["step"] for event in events(run, "stopped")]


def test_a_preempted_run_goes_on_as_if_nothing_had_happened(batch: Batch, reference: Path) -> None:
    run = batch.submit(*TWO_NODES, *LONG, "train.steps=1200", "id=preempted")
    batch.wait_for_step(run, 60)
    preempt(batch, run)
    batch.finish(run)
    assert_equal(run, reference)
    assert resumed_from(run) == stopped_at(run), "steps were lost though the save fits the grace"
    assert "attempt 001" in (run / "job.log").read_text()
    assert "attempt 000" in (run / "job.log").read_text(), "the log of the first attempt was overwritten"


def test_a_requeue_from_outside_and_a_signal_from_outside(batch: Batch, reference: Path) -> None:
    run = batch.submit(*TWO_NODES, *LONG, "train.steps=1200", "id=outside")
    batch.wait_for_step(run, 40)
    batch.cluster.slurm("scontrol", "requeue", batch.job(run))
    batch.wait_for_step(run, last_step(run) + 40, attempt=1)
    batch.cluster.slurm("scancel", "--signal=USR2", batch.job(run))
    batch.wait_for_step(run, last_step(run) + 1, attempt=2)
    batch.finish(run)
    assert_equal(run, reference)


def test_scancel_ends_it(batch: Batch) -> None:
    run = batch.submit(*TWO_NODES, *LONG, "train.steps=100000", "id=cancelled")
    batch.wait_for_step(run, 40)
    done = batch("cancel", str(run))
    assert done.returncode == 0, done.stderr
    assert batch.wait_until_over(run, 60) == "CANCELLED"
    gone_within(batch.processes, 15)
    time.sleep(8)  # longer than the scheduler waits before it starts a requeued job again
    assert batch.state(run) == "CANCELLED"
    assert not events(run, "requeued")
    assert "cancelled" in batch("status", str(run)).stdout
    assert len(list((run / "checkpoints").glob("step_*"))) >= 1


def test_a_lost_node_and_the_attempt_that_lives_on_there(batch: Batch, reference: Path) -> None:
    """The node is given up while its processes go on: they find themselves fenced, write no more and end."""
    run = batch.submit(
        "cluster.nodes=1", "cluster.processes_per_node=2", *LONG, "train.steps=1200", "id=lost", env={"TOY_STEP_SECONDS": "0.05"}
    )
    batch.wait_for_step(run, 30)
    node = batch.cluster.slurm("squeue", "--noheader", "--format=%N", "--jobs", batch.job(run)).strip()
    old = batch.processes()
    try:
        batch.cluster.kill(node)
        batch.wait_for_step(run, 40, attempt=1, seconds=150)
        gone_within(lambda: [process for process in old if in_training(process)], 30)
        batch.finish(run)
    finally:
        batch.cluster.heal(node)
    assert_equal(run, reference)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_five_runs_meet_their_time_limits(batch: Batch, reference: Path) -> None:
    """Side by side, for a limit cannot be less than a minute."""
    words = (*TWO_NODES, *LONG, "train.steps=1200", "cluster.time=1:00")
    runs = [batch.submit(*words, f"id=limited-{number}", env={"TOY_STEP_SECONDS": "0.03"}) for number in range(5)]
    for run in runs:
        batch.finish(run, 1200)
        assert_equal(run, reference)
        assert len(events(run, "requeued")) >= 1
    print(f"time limits met: {[len(events(run, 'requeued')) for run in runs]}")


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(3000)
def test_five_minutes_of_decoding_below_a_limit_of_ten(batch: Batch) -> None:
    """Start-up is no step: what is left of the limit is trained, all but the lead of a save."""
    words = ("cluster.nodes=1", "id=slow", "train.batch_size=16", "train.steps=1500", "train.save_every=auto", "cluster.time=10:00")
    run = batch.submit(*words, env={"TOY_STEP_SECONDS": "0.2", "TOY_START_SECONDS": "300"})
    batch.finish(run, 2400)
    began = [int(event["step"]) for event in events(run, "started")]
    gained = [after - before for before, after in itertools.pairwise([*began, 1500])]
    print(f"{len(began)} attempts of ten minutes, five of them start-up, gained {gained} steps of 0.2 s")
    assert all(steps >= 400 for steps in gained[:-1])
    assert len(began) <= 4


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_five_nodes_are_lost(batch: Batch, reference: Path) -> None:
    """One run, its node given up five times while the processes there go on."""
    words = ("cluster.nodes=1", "cluster.processes_per_node=2", *LONG, "train.steps=1200", "id=lost")
    run = batch.submit(*words, env={"TOY_STEP_SECONDS": "0.15"})
    for loss in range(5):
        batch.wait_for_step(run, last_step(run) + 20, attempt=loss, seconds=200)
        node = batch.cluster.slurm("squeue", "--noheader", "--format=%N", "--jobs", batch.job(run)).strip()
        try:
            batch.cluster.kill(node)
            wait_for(lambda loss=loss: len(events(run, "attempt")) > loss + 1, 150, "the next attempt")
        finally:
            batch.cluster.heal(node)
    batch.finish(run, 600)
    fenced = [path.name for path in (run / "attempts").iterdir() if "has taken over" in read(path / "rank_0.log")]
    print(f"5 nodes lost, attempts fenced: {len(set(fenced) - {'latest'})}")
    assert_equal(run, reference)


@pytest.mark.slow
def test_five_are_cancelled(batch: Batch) -> None:
    runs = [batch.submit(*TWO_NODES, *LONG, "train.steps=100000", f"id=cancelled-{number}") for number in range(5)]
    for run in runs:
        batch.wait_for_step(run, 20, seconds=300)
        batch.cluster.slurm("scancel", batch.job(run))
    for run in runs:
        assert batch.wait_until_over(run, 60) == "CANCELLED"
    gone_within(batch.processes, 15)
    time.sleep(8)
    assert [batch.state(run) for run in runs] == ["CANCELLED"] * 5
    assert [events(run, "requeued") for run in runs] == [[]] * 5


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_twenty_preemptions(batch: Batch, reference: Path) -> None:
    """At random steps, until the run is through."""
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    run = batch.submit(*TWO_NODES, *LONG, "train.steps=1200", "id=night", env={"TOY_STEP_SECONDS": "0.02"})
    for preemption in range(20):
        batch.wait_for_step(run, last_step(run) + rng.randrange(1, 40), attempt=preemption)
        preempt(batch, run, preemption)
        wait_for(lambda preemption=preemption: len(events(run, "attempt")) > preemption + 1, 120, "the next attempt")
    batch.finish(run)
    ended = [read(path / "outcome").strip() for path in sorted((run / "attempts").glob("[0-9]*"))]
    killed = sum(word == "" for word in ended)  # by a loaded machine: the save did not fit the grace of 6 s
    print(f"20 preemptions, {len(ended)} attempts, {killed} killed before they had saved, steps done again: {done_again(run)}")
    assert_equal(run, reference)
    assert done_again(run) <= killed * (SAVE_EVERY + 1)  # and a line of evaluation


def done_again(run: Path) -> int:
    """Steps of an attempt that the next one did again, because the first had not saved where it ended."""
    return sum(event["replayed"] for event in events(run, "started"))


def read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


@pytest.mark.slow
def test_a_job_that_hangs_every_time_is_requeued_three_times_and_no_more(batch: Batch) -> None:
    words = ("cluster.processes_per_node=2", "train.steps=400", "train.save_every=100", "train.hang_seconds=3", "loader.fault=[20,always]")
    run = batch.submit("cluster.nodes=1", *words)
    batch.wait_until_over(run, 400)
    log = (run / "job.log").read_text(errors="replace")
    assert [event["reason"] for event in events(run, "requeued")] == [f"a rank hung; see: python -m launcher why {run}"] * 3
    assert len(events(run, "started")) == 3
    assert "3 attempts of job" in log
    assert "in a row brought no new checkpoint (newest: none)" in log
    assert not (run / "attempts" / "003" / "rank_0.log").exists()
    why = batch("why", str(run))
    print(why.stdout)
    assert "no new checkpoint" in why.stdout


@pytest.mark.slow
def test_a_controller_that_is_away_when_the_run_wants_to_go_on_later(batch: Batch, reference: Path) -> None:
    """The warning of a time limit comes, the run saves, and nobody is there to be asked for a requeue: the shell asks until somebody is."""
    words = ("cluster.nodes=1", "cluster.processes_per_node=2", *LONG, "train.steps=1200", "id=away")
    run = batch.submit(*words, env={"TOY_STEP_SECONDS": "0.03"})
    batch.wait_for_step(run, 60)
    batch.cluster.controller("stop")
    try:
        shell(batch).send_signal(signal.SIGUSR2)
        wait_for(lambda: events(run, "stopped"), 60, "the stop")
        wait_for(lambda: "the controller does not answer" in (run / "job.log").read_text(), 60, "the first try")
        assert not events(run, "requeued")
    finally:
        batch.cluster.controller("start")
    batch.finish(run)
    assert_equal(run, reference)
    assert resumed_from(run) == stopped_at(run)


def shell(batch: Batch) -> psutil.Process:
    """The one that runs job.sh: below slurmstepd, above the srun of the step and the shell around that."""
    step = next(process for process in batch.processes() if process.name() == "srun")
    return [process for process in step.parents() if "slurm_script" in " ".join(process.cmdline())][-1]


@pytest.mark.slow
def test_a_node_without_a_network_ends_the_attempt_on_both_sides(batch: Batch, reference: Path) -> None:
    """No split brain: the workers of each side find that the others do not come, and end; the next attempt has other nodes. torchrun on
    the node that is alone waits for its store until the network is back, without a worker."""
    run = batch.submit(*TWO_NODES, *LONG, "train.steps=1200", "id=cut", "train.hang_seconds=5", env={"TOY_STEP_SECONDS": "0.03"})
    batch.wait_for_step(run, 60)
    nodes = batch.cluster.slurm("scontrol", "show", "hostnames", batch.cluster.detail(batch.job(run), "NodeList")).split()
    old = [process for process in batch.processes() if in_training(process)]
    try:
        batch.cluster.cut(nodes[1])
        gone_within(lambda: [process for process in old if in_training(process) and "-u" in process.cmdline()], 60)
        batch.wait_for_step(run, 70, attempt=1, seconds=240)
    finally:
        batch.cluster.heal(nodes[1])
    gone_within(lambda: [process for process in old if in_training(process)], 120)
    batch.finish(run)
    assert_equal(run, reference)
