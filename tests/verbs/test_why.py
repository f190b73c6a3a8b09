"""`why RUN`: the verdict on runs that never were and on damaged ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Answer, refused
from made_runs import CASES, CUT, FAILED, START, TRACEBACK, Made, Said, job, said

from launcher.clusters.slurm import scheduler
from launcher.plan import World

Ask = Callable[[Path], Said]
Programs = Callable[[str, str], None]


@pytest.fixture
def programs(tmp_path: Path, command: object, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Programs of a scheduler, as shell text; squeue knows no job and nobody keeps accounts until a test says otherwise."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")

    def program(name: str, text: str) -> None:
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)

    program("squeue", "exit 0")
    program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    return program


@pytest.fixture
def ask(programs: Programs, command: Callable[..., Answer]) -> Ask:
    def call(run: Path) -> Said:
        answer = command("why", str(run))
        assert answer.code == 0, answer
        return said(answer.out, answer.err)

    return call


@pytest.mark.parametrize(("make", "verdict", "where", "advice"), CASES, ids=[make.__name__ for make, *_ in CASES])
def test_the_cause_and_not_what_followed_from_it(
    tmp_path: Path, ask: Ask, make: Callable[[Made], None], verdict: str, where: str, advice: str
) -> None:
    made = Made(tmp_path)
    made.attempt(ended="failed")
    make(made)
    answer = ask(made.path)
    assert verdict in answer["verdict"]
    assert answer["where"].startswith(where)
    assert advice in answer["next"]
    assert 1 <= len(answer["because"].splitlines()) <= 5
    assert all(line.startswith(("attempts/000/", "job.log: ")) for line in answer["because"].splitlines())


# ---------------------------------------------------------------- what the scheduler says


@pytest.mark.parametrize(
    ("reason", "start", "words", "advice"),
    [
        ("Resources", "2026-11-21T14:00:00", "what it asks for is in use (Resources)", "nothing: it starts by itself"),
        ("JobHeldUser", "N/A", "hold it", "scontrol release 12"),
        ("PartitionTimeLimit", "N/A", "beyond what the partition allows (PartitionTimeLimit)", "cluster.time"),
        ("launch failed requeued held", "N/A", "failed to start it", "scontrol release 12"),
    ],
)
def test_a_pending_job_says_why_it_waits_and_since_when(
    tmp_path: Path, programs: Programs, ask: Ask, reason: str, start: str, words: str, advice: str
) -> None:
    programs("squeue", job("PENDING", reason, start))
    answer = ask(Made(tmp_path).path)
    assert words in answer["verdict"]
    assert f"({reason}) since 2026-11-21T12:07:30" in answer["because"]
    assert (f"estimated start {start}" if start != "N/A" else "no estimate") in answer["because"]
    assert advice in answer["next"]


def test_a_running_job_says_where_it_is_and_how_its_attempts_ended(tmp_path: Path, programs: Programs, ask: Ask) -> None:
    made = Made(tmp_path)
    for number, ended in enumerate(["requeued-limit", None, "failed", None]):
        made.attempt(number, ended, nodes="node[3-4]" if number == 2 else "node[1-2]")
    starts = [START.replace("000", f"00{number}") for number in range(4)]
    doctor = FAILED.replace("000", "002").replace("the step ended with status 1", "the doctor names bad nodes")
    made.write("job.log", "\n".join([starts[0], starts[1], CUT.format("PREEMPTION"), starts[2], doctor, starts[3]]))
    made.run.rank_log(3, 0).write_text("step 7/40  2.5%  loss 1.382  885 samples/s  eta 0:03\n")
    programs("squeue", job("RUNNING"))
    answer = ask(made.path)
    assert answer["verdict"] == "it runs, at step 7, on node[1-2] for 0:42 as job 12"
    assert answer["because"] == "attempts/003/rank_0.log: step 7/40  2.5%  loss 1.382  885 samples/s  eta 0:03"
    assert answer.table == [
        ["0", "12", "node[1-2]", "requeued before the time limit"],
        ["1", "12", "node[1-2]", "preempted: a job that comes first took the nodes"],
        ["2", "12", "node[3-4]", "the doctor names bad nodes; see: python -m launcher why"],
        ["3", "12", "node[1-2]", "goes on"],
    ]


def test_a_run_that_hangs_is_said_to_be_silent_and_one_that_starts_names_the_node_that_is_late(
    tmp_path: Path, programs: Programs, ask: Ask
) -> None:
    made = Made(tmp_path)
    made.attempt()
    made.write("agent_0.log", "")
    programs("squeue", job("RUNNING"))
    assert "nothing has come of node2 yet" in ask(made.path)["verdict"]
    made.write("rank_0.log", "step 7/40  2.5%  loss 1.382  885 samples/s  eta 0:03\n", age=3_600)
    assert "rank 0 has written nothing for 1:00:00" in ask(made.path)["verdict"]


def test_what_waits_again_goes_on_by_itself(tmp_path: Path, programs: Programs, ask: Ask) -> None:
    made = Made(tmp_path)
    made.attempt(ended="requeued-limit")
    programs("squeue", job("COMPLETING"))
    assert ask(made.path)["next"] == "nothing: it goes on by itself"
    programs("squeue", job("CANCELLED"))
    assert ask(made.path)["verdict"] == "cancelled with scancel while it waited for its next attempt"


def test_the_job_that_was_given_last_counts(tmp_path: Path, programs: Programs, ask: Ask) -> None:
    made = Made(tmp_path)
    made.attempt(ended="failed")
    made.report(3, "ValueError: not a label")
    made.event("queued", job="13")
    programs("squeue", job("CANCELLED").replace("12|12", "13|13"))
    assert ask(made.path)["verdict"] == "job 13 was cancelled before it began"


def test_stuck_says_how_the_last_attempt_before_ended(tmp_path: Path, ask: Ask) -> None:
    made = Made(tmp_path)
    made.attempt(0, "failed")
    made.report(3, "ValueError: not a label")
    made.attempt(1, "stuck")
    text = "launcher: attempt 001 stuck: 3 attempts of job 12 in a row brought no new checkpoint (newest: none); look at: python -m …"
    made.write("job.log", f"{START}\n{FAILED}\n2026-11-21T12:09:40 {text}")
    answer = ask(made.path)
    assert answer["verdict"].startswith("stuck: 3 attempts of job 12 in a row brought no new checkpoint")
    assert answer["verdict"].endswith("ValueError: not a label")


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_prelude_that_ended_the_job_is_the_verdict(tmp_path: Path, ask: Ask, attempts: int) -> None:
    made = Made(tmp_path)
    for number in range(attempts):
        made.attempt(number, "requeued-limit")
    made.event("prelude", ends=True, job="12", reason="site.sh line 1: module load cuda/99 (status 127)")
    assert ask(made.path)["verdict"] == "the prelude ended the job: site.sh line 1: module load cuda/99 (status 127)"


def test_stuck_below_its_time_limit_says_what_to_type(tmp_path: Path, ask: Ask) -> None:
    made = Made(tmp_path)
    made.attempt(0, "requeued-limit")
    made.attempt(1, "stuck")
    words = "3 attempts of job 12 in a row reached their time limit of 600 s with less …; in a new run: cluster.time=0:49:00; look at: …"
    made.write("job.log", f"{START}\n2026-11-21T12:09:40 launcher: attempt 001 stuck: {words}")
    assert ask(made.path)["next"] == "in a new run: cluster.time=0:49:00"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("sacct", "verdict"),
    [
        ("echo 'NODE_FAIL|0:0|node[1-2]|None'", "a node failed"),
        ("echo 'CANCELLED by 1000|0:15|node[1-2]|None'", "cancelled with scancel"),
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", "killed: no process of it is left"),
        ("exec sleep 60", "killed: no process of it is left"),
        ("echo; printf '\\377|\\n'", "killed: no process of it is left"),
        (None, "killed: no process of it is left"),
    ],
)
def test_sacct_is_asked_last_and_may_be_of_no_use(
    tmp_path: Path, programs: Programs, ask: Ask, monkeypatch: pytest.MonkeyPatch, sacct: str | None, verdict: str
) -> None:
    monkeypatch.setattr(scheduler, "ACCOUNTING_SECONDS", 0.5)
    made = Made(tmp_path)
    made.attempt()
    if sacct is None:
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        (tmp_path / "bin" / "sacct").unlink()
    else:
        programs("sacct", sacct)
    assert ask(made.path)["verdict"].startswith(verdict)


def test_squeue_is_asked_once_and_without_it_the_files_speak(tmp_path: Path, programs: Programs, ask: Ask) -> None:
    made = Made(tmp_path)
    made.attempt(ended="failed")
    made.report(3, "ValueError: not a label")
    programs("squeue", f"echo asked >>{tmp_path}/asked; echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    answer = ask(made.path)
    assert answer["verdict"] == "ValueError: not a label"
    assert "the controller does not answer" in answer.err
    assert (tmp_path / "asked").read_text() == "asked\n"


@pytest.mark.parametrize(
    ("said", "verdict", "advice"),
    [
        ("Invalid account or account/partition combination specified", "the account may not have this job", "cluster.account"),
        ("Invalid qos specification", "the QOS may not have this job", "cluster.qos"),
        ("invalid partition specified: gpu", "the partition may not have this job", "cluster.partition"),
        ("Zero Bytes were transmitted or received", "the controller does not answer", "resume"),
    ],
)
def test_what_the_scheduler_refused_it_is_asked_about_again(
    tmp_path: Path, programs: Programs, ask: Ask, said: str, verdict: str, advice: str
) -> None:
    made = Made(tmp_path)
    made.run.events.write_text('{"time": 1, "event": "submitted"}\n')
    programs("sbatch", f"echo 'sbatch: error: Batch job submission failed: {said}' >&2; exit 1")
    answer = ask(made.path)
    assert answer["verdict"].startswith("not submitted: ")
    assert verdict in answer["verdict"]
    assert advice in answer["next"]


def test_a_job_that_wrote_nothing_did_not_see_the_run_directory(tmp_path: Path, programs: Programs, ask: Ask) -> None:
    programs("squeue", job("FAILED", "NonZeroExitCode"))
    answer = ask(Made(tmp_path).path)
    assert answer["verdict"] == "job 12 ended as FAILED and wrote nothing: a node does not see the run directory, it seems"
    assert "runs_dir" in answer["next"]


# ---------------------------------------------------------------- on this machine, and for a run that is not there


@pytest.mark.parametrize(
    ("summary", "verdict"),
    [
        ({"state": "stopped", "attempt": 0, "stopped_by": "file"}, "stopped and saved as the STOP file asked"),
        ({"state": "done", "attempt": 0, "steps": 40, "attempts": 2, "test_accuracy": 0.9}, "done: all 40 steps, in 2 attempts"),
        (None, "killed: no process of it is left"),
    ],
)
def test_a_run_on_this_machine(tmp_path: Path, ask: Ask, summary: dict[str, object] | None, verdict: str) -> None:
    made = Made(tmp_path, batch=False)
    made.run.attempt(0).mkdir()
    if summary is not None:
        made.run.summary.write_text(json.dumps(summary))
    assert ask(made.path)["verdict"].startswith(verdict)


def test_a_single_process_has_no_peer_to_lose(tmp_path: Path, ask: Ask) -> None:
    made = Made(tmp_path, batch=False, world=World(1, 1, "cpu"))
    made.run.attempt(0).mkdir()
    made.report(0, "ConnectionResetError: [Errno 104] Connection reset by peer")
    assert ask(made.path)["verdict"] == "ConnectionResetError: [Errno 104] Connection reset by peer"


def test_a_run_that_is_not_there_is_a_bad_command(command: Callable[..., Answer]) -> None:
    refused(command("why", "nothing"), 2, "nothing: no such run")
    refused(command("why"), 2, "why takes one run")


# ---------------------------------------------------------------- damage


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00\x1b[2J" * 50 + b'\n{"event": 3}\n[]\n12\nnull\n{"time"')


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def huge(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(3 * 2**30)  # sparse


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("damage", [garbage, torn, huge, pipe, directory, Path.unlink], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["attempts/000/error.json", "attempts/000/rank_3.log", "attempts/000/agent_1.log", "job.log", "job.sh"])
def test_a_damaged_file_costs_its_own_words_alone(tmp_path: Path, ask: Ask, name: str, damage: Callable[[Path], None]) -> None:
    made = Made(tmp_path)
    made.attempt(ended="failed")
    made.report(3, "ValueError: \x1b[31mnot a label\x1b[0m")
    made.write("rank_3.log", TRACEBACK.format("ValueError: not a label"))
    made.table(1, (3, 1, "node2"))
    made.write("job.log", f"{START}\n{FAILED}")
    damage(made.path / name)
    answer = ask(made.path)
    assert "not a label" in answer["verdict"]


@pytest.mark.parametrize("damage", [garbage, torn, directory], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["plan.json", "events.jsonl", "summary.json", ".lock", "attempts/000/ended"])
def test_a_damaged_ledger_still_gives_an_answer(tmp_path: Path, ask: Ask, name: str, damage: Callable[[Path], None]) -> None:
    made = Made(tmp_path)
    made.attempt(ended="failed")
    made.run.summary.write_text('{"state": "failed"}')
    made.run.lock.touch()
    if (name, damage) == ("plan.json", directory):
        return  # no run directory then
    damage(made.path / name)
    assert ask(made.path)["verdict"]


@pytest.mark.parametrize("text", ["[]", "{}", '"state"', '{"state": 4}', "[" * 100_000])
def test_a_summary_that_is_no_summary(tmp_path: Path, ask: Ask, text: str) -> None:
    (made := Made(tmp_path)).run.summary.write_text(text)
    assert ask(made.path)["verdict"]
