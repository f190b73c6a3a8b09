"""A job is over in a state that is known to be one, on whichever cluster it is: else a second one would train beside it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import UNREACHABLE, FakeSlurm
from helpers import Answer, Command, records, refused, run_dir
from made_runs import Made, job, said

from launcher import scheduler, standing

ALIVE = (
    *("PENDING", "RUNNING", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "STAGE_OUT", "POWER_UP_NODE", "LAUNCH_FAILED", "EXPEDITING"),
    "REVOKED",
    *("running", "pending+requeue_hold", "COMPLETED+COMPLETING", "FAILED+REQUEUED", "TIMEOUT,STAGE_OUT", "OF_A_LATER_VERSION", ""),
)
OVER = (
    "COMPLETED",
    "CANCELLED by 1000",
    "cancelled",
    "TIMEOUT",
    "NODE_FAIL",
    "BOOT_FAIL",
    "DEADLINE",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "FAILED",
)


def test_only_what_is_known_to_be_over_is_over() -> None:
    assert {state: scheduler.is_over(state) for state in ALIVE} == dict.fromkeys(ALIVE, False)
    assert {state: scheduler.is_over(state) for state in OVER} == dict.fromkeys(OVER, True)


def test_in_no_other_state_a_run_gets_a_second_job(
    command: Command,
    on_slurm: tuple[str, ...],
    fake: FakeSlurm,
) -> None:
    run = run_dir(command(*on_slurm))
    queue = (fake.home / "queue").read_text()
    for state in ("RESV_DEL_HOLD", "SPECIAL_EXIT", "COMPLETED+COMPLETING", "of_a_later_version"):
        (fake.home / "queue").write_text(queue.replace("|PENDING|", f"|{state}|"))
        refused(command("resume", str(run)), 3, f"is {state.lower()} as job 123 already")
        word = {"COMPLETED+COMPLETING": "ending"}.get(state, state.lower())
        assert f" {word} " in command("status", str(run)).out
    assert len(fake.submitted) == 1
    (fake.home / "queue").write_text(queue.replace("|PENDING|", "|CANCELLED by 1000|"))
    assert " cancelled " in command("status", str(run)).out
    assert command("resume", str(run)).code == 0
    assert len(fake.submitted) == 2


@pytest.fixture
def ask(tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """`why` of a made run, with what squeue and sacct say as shell text."""

    def call(squeue: str, sacct: str = "exit 1", made: Made | None = None) -> dict[str, str]:
        made = made or Made(tmp_path)
        (tmp_path / "bin").mkdir()
        for name, text in (("squeue", squeue), ("sacct", sacct)):
            (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
        return said(command("why", str(made.path)).out)

    return call


@pytest.mark.parametrize(
    ("squeue", "sacct", "advice"),
    [
        (job("RESV_DEL_HOLD", "Reservation"), "exit 1", "scontrol release 12"),
        (job("SPECIAL_EXIT", "None"), "exit 1", "scontrol release 12"),
        (job("OF_A_LATER_VERSION", "Resources"), "exit 1", "nothing: it starts by itself"),
        ("exit 0", "echo 'RESV_DEL_HOLD|0:0|None|None'", "python -m launcher status"),
        ("exit 0", "echo 'pending|0:0|None|None'", "python -m launcher status"),
        ("exit 0", "echo 'DEADLINE|0:0|None|None'", "resume"),
    ],
)
def test_why_does_not_take_a_state_for_a_directory_that_nodes_do_not_see(
    squeue: str, sacct: str, advice: str, ask: Callable[..., dict[str, str]]
) -> None:
    answer = ask(squeue, sacct)
    assert "runs_dir" not in answer["next"]
    assert advice in answer["next"]


# ---------------------------------------------------------------- no answer


@pytest.mark.parametrize("says", [f"echo '{UNREACHABLE}' >&2; exit 1", f"echo '{UNREACHABLE}' >&2", "exit 1", "kill -9 $$"])
def test_a_squeue_that_fails_is_never_the_end(says: str, tmp_path: Path, ask: Callable[..., dict[str, str]]) -> None:
    made = Made(tmp_path)
    made.attempt(ended="requeued-limit")
    assert "dead" not in ask(says, made=made)["verdict"]
    jobs, excuse = standing.ask([made.run])
    assert (jobs, standing.standing(made.run, jobs).word) == (None, "unknown")
    assert excuse


# ---------------------------------------------------------------- another cluster

FAR = """\
case " $* " in *" --clusters=far "*) echo "CLUSTER: far" ;; *) exit 0 ;; esac
"""


@pytest.fixture
def far(fake: FakeSlurm) -> FakeSlurm:
    """The job is on a cluster that answers for itself alone."""
    fake.squeue(FAR)
    fake.sbatch("accept 123; echo '123;far'")
    (fake.bin / "scancel").write_text(f'#!/bin/bash\nprintf "%s\\n" "$*" >>{shlex.quote(str(fake.home))}/cancelled\n')
    (fake.bin / "scancel").chmod(0o755)
    return fake


@pytest.mark.parametrize("said_by", ["the plan", "SBATCH_CLUSTERS", "SLURM_CLUSTERS"])
def test_a_job_on_another_cluster_is_seen_and_cancelled_there_and_not_submitted_twice(
    said_by: str,
    command: Command,
    on_slurm: tuple[str, ...],
    far: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if said_by == "the plan":
        on_slurm = (*on_slurm, "+cluster.sbatch.clusters=far")
    else:
        monkeypatch.setenv(said_by, "far")
    run = run_dir(command(*on_slurm))
    monkeypatch.delenv(said_by, raising=False)  # another shell, later
    assert [event["cluster"] for event in records(run / "events.jsonl") if event["event"] == "queued"] == ["far"]
    assert ("--clusters=far" in far.calls[-1]) is (said_by != "the plan")
    status = command("status", str(run)).out
    assert " queued " in status
    assert "job        123 on far: pending" in status
    refused(command("resume", str(run)), 3, "is pending as job 123 already")
    assert len(far.submitted) == 1
    assert command("cancel", str(run)).code == 0
    assert (far.home / "cancelled").read_text() == "--clusters=far 123\n"


def test_a_reply_that_is_lost_is_looked_for_there(
    command: Command,
    on_slurm: tuple[str, ...],
    far: FakeSlurm,
) -> None:
    far.squeue(FAR.replace("=far", "=near,far").replace('"CLUSTER: far"', '"CLUSTER: near"; echo "CLUSTER: far"'))
    far.sbatch("accept 7; kill -9 $$")
    run = run_dir(command(*on_slurm, "+cluster.sbatch.clusters='near,far'"))
    queued = [event for event in records(run / "events.jsonl") if event["event"] == "queued"]
    assert [(event["job"], event["cluster"]) for event in queued] == [("7", "far")]


def test_two_clusters_have_jobs_of_one_number(tmp_path: Path, command: Command, ask: Callable[..., dict[str, str]]) -> None:
    made = Made(tmp_path)
    made.event("queued", job="12", cluster="far")
    there = job("RUNNING").replace("echo '", "echo 'CLUSTER: far'; echo '")
    assert "it waits" not in ask(f'case " $* " in *--clusters=far*) {there} ;; *) {job("PENDING")} ;; esac', made=made)["verdict"]
    assert "starting" in command("status", str(made.path)).out
