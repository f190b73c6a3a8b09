"""A job is over in a state that is known to be one, on whichever cluster it is: else a second one would train beside it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import UNREACHABLE, FakeSlurm
from helpers import Answer, Command, records, refused, run_dir
from made_runs import Made, job, said

from launcher.clusters import queues
from launcher.clusters.slurm import scheduler, states
from launcher.errors import ClusterError
from launcher.verdict import standing

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
    assert {state: states.is_over(state) for state in ALIVE} == dict.fromkeys(ALIVE, False)
    assert {state: states.is_over(state) for state in OVER} == dict.fromkeys(OVER, True)


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
    queue = queues.ask([made.run])
    assert standing.standing(made.run, queue).word == "unknown"
    assert queue.excuse


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


SILENT = {"refuses": f"fail '{UNREACHABLE}'", "is not known": "fail 'No cluster far known by database.'", "is slow": "sleep 60"}


@pytest.mark.parametrize("how", SILENT)
def test_a_cluster_that_does_not_answer_says_nothing_of_the_others(
    how: str, command: Command, on_slurm: tuple[str, ...], far: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = run_dir(command(*on_slurm, "+cluster.sbatch.clusters=far", "name=there"))
    far.sbatch("accept 124; echo 124")
    far.squeue("exit 0")
    (far.home / "queue").write_text("")
    here = run_dir(command(*on_slurm, "name=here"))
    far.squeue(f"""case " $* " in *" --clusters=far "*) {SILENT[how]}; exit ;; esac""")
    monkeypatch.setattr(scheduler, "SECONDS", 0.5)
    answer = command("status")
    words = {line.split("/")[0]: line.split()[1] for line in answer.out.splitlines()}
    assert (words["here"], words["there"]) == ("queued", "submitted")
    assert len(answer.err.splitlines()) == 1
    assert "the scheduler does not say: squeue --clusters=far" in answer.err
    refused(command("cancel", str(there)), 4, "squeue --clusters=far", "nothing was cancelled")
    assert command("cancel", str(here)).code == 0
    assert (far.home / "cancelled").read_text() == "124\n"


def test_a_sweep_on_two_clusters_of_which_one_does_not_answer(command: Command, on_slurm: tuple[str, ...], far: FakeSlurm) -> None:
    far.sbatch("accept 5_0; accept 5_1; echo 5")
    far.squeue(f"""case " $* " in *" --clusters=far "*) fail '{UNREACHABLE}' ;; esac""")
    sweep = command(*on_slurm, "-m", "seed=1,2").out.splitlines()[-1]
    moved = next(run for run in (Path(sweep).parent.parent).glob("*/*-1") if (run / "events.jsonl").exists())
    with (moved / "events.jsonl").open("a") as ledger:
        ledger.write('{"time": 1, "event": "queued", "job": "9", "cluster": "far"}\n')
    answer = command("resume", sweep)
    assert answer.code == 0
    assert "squeue --clusters=far" in answer.err
    assert "every member of" in answer.out
    assert "whose cluster answers is done or on its way" in answer.out
    refused(command("cancel", sweep), 4, "squeue --clusters=far", "1 jobs of sweep", "are cancelled, 1 may go on: type the same again")
    assert (far.home / "cancelled").read_text() == "5_0\n"


def test_an_scancel_that_fails_on_one_cluster_ends_the_jobs_on_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = tmp_path / "scancel"
    stub.write_text(
        f'#!/bin/bash\ncase "$1" in --clusters=far) echo "{UNREACHABLE}" >&2; exit 1 ;; esac\necho "$@" >>{tmp_path}/cancelled\n'
    )
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    near, away = (states.SlurmJob("1", "RUNNING", "running", cluster=cluster) for cluster in ("", "far"))
    with pytest.raises(ClusterError, match=r"^scancel --clusters=far: the controller does not answer"):
        scheduler.cancel([away, near])
    assert (tmp_path / "cancelled").read_text() == "1\n"


@pytest.mark.parametrize(
    ("state", "word", "verdict", "advice"),
    [
        ("SIGNALING", "starting", "its processes start, on", "logs"),
        ("SUSPENDED", "suspended", "suspended: on its nodes, by the scheduler", "nothing"),
        ("STOPPED", "suspended", "stopped: on its nodes, somebody has", "scancel --clusters=far --signal=CONT 12"),
        ("RESV_DEL_HOLD", "resv_del_hold", "it waits: resv_del_hold", "scontrol --clusters=far release 12"),
        ("", "unknown", "it waits", "nothing"),
    ],
)
def test_a_state_is_shown_as_what_it_is(
    state: str, word: str, verdict: str, advice: str, tmp_path: Path, command: Command, ask: Callable[..., dict[str, str]]
) -> None:
    made = Made(tmp_path)
    made.event("queued", job="12", cluster="far")
    made.event("attempt", attempt=0, job="12", reason="nodes node1")
    made.attempt()
    answer = ask(job(state), made=made)
    assert f" {word} " in command("status", str(made.path)).out
    assert verdict in answer["verdict"]
    assert advice in answer["next"]


def test_two_clusters_have_jobs_of_one_number(tmp_path: Path, command: Command, ask: Callable[..., dict[str, str]]) -> None:
    made = Made(tmp_path)
    made.event("queued", job="12", cluster="far")
    there = job("RUNNING").replace("echo '", "echo 'CLUSTER: far'; echo '")
    assert "it waits" not in ask(f'case " $* " in *--clusters=far*) {there} ;; *) {job("PENDING")} ;; esac', made=made)["verdict"]
    assert "starting" in command("status", str(made.path)).out
