"""Giving a run to SLURM, with programs that misbehave in its place: once, or not at all and nothing is left, or not known and kept."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fake_slurm import UNREACHABLE, FakeSlurm
from helpers import Command, Started, records, refused, run_dir
from processes import wait_for

from launcher.clusters import submit
from launcher.clusters.slurm import scheduler
from launcher.errors import NoAnswer


def queued(run: Path) -> list[str]:
    return [str(event["job"]) for event in records(run / "events.jsonl") if event["event"] == "queued"]


# ---------------------------------------------------------------- sbatch accepts

ACCEPTS = (
    ("accept 123; echo 123", "123"),
    ("accept 123; echo '123;cluster'", "123"),
    ("accept 123; printf 123", "123"),
    ("echo 'Welcome to the cluster'; accept 123; echo 123", "123"),
    ("echo 'sbatch: warning: this partition is old' >&2; accept 123; echo 123", "123"),
    # the reply is lost, and the queue has the job
    ("accept 77", "77"),
    ("accept 77; echo Submitted batch job abc", "77"),
    ("accept 77; echo rubbish", "77"),
    ("accept 77; echo ٧٧", "77"),
    ("accept 77; kill -9 $$", "77"),
    ("accept 77; kill -TERM $$", "77"),
    ("accept 77; exit 137", "77"),
    ("accept 77; exit 1", "77"),
    ("accept 77; echo 77; exit 1", "77"),
    ("accept 77; sleep 60", "77"),
    ("accept 77; fail 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation'", "77"),
    ("accept 77; fail 'sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received'", "77"),
)


@pytest.mark.parametrize(("bash", "number"), ACCEPTS, ids=lambda value: value[:40])
def test_a_job_that_was_accepted_is_submitted_once(
    bash: str, number: str, command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in bash:
        monkeypatch.setattr(scheduler, "SECONDS", 0.5)
    fake.sbatch(bash)
    answer = command(*on_slurm)
    assert (answer.code, answer.err) == (0, "")
    run = run_dir(answer)
    assert fake.submitted == [f"{run}/job.sh"]
    assert fake.calls[-1] == ["--parsable", f"--chdir={run}", f"{run}/job.sh"]
    assert queued(run) == [number]
    assert answer.out.splitlines() == [
        f"job     {number} (estimated start 2026-11-22T20:34:08)",
        f"watch   python -m launcher logs {shlex.quote(str(run))} -f",
        f"state   python -m launcher status {shlex.quote(str(run))}",
        f"cancel  python -m launcher cancel {shlex.quote(str(run))}",
        str(run),
    ]
    refused(command("resume", str(run)), 3, f"is pending as job {number} already", "logs", "cancel")
    assert len(fake.submitted) == 1


# ---------------------------------------------------------------- not known

SILENT = (
    (":", "sbatch said '' instead of a job id"),
    ("echo Submitted batch job abc", "sbatch said 'Submitted batch job abc' instead of a job id"),
    ("echo -5", "sbatch said '-5' instead of a job id"),
    ("echo 12_3", "instead of a job id"),
    ("kill -9 $$", "sbatch was killed by signal 9"),
    ("exit 137", "sbatch was killed by signal 9"),
    ("exit 1", "sbatch ended with status 1 and said ''"),
    ("sleep 60", "sbatch did not answer within 0 s"),
    (
        f"fail 'sbatch: error: Batch job submission failed: {UNREACHABLE}'",
        f"the controller does not answer (Batch job submission failed: {UNREACHABLE}",
    ),
    ("fail 'sbatch: error: Unable to establish control machine address'", "the controller does not answer"),
)


@pytest.mark.parametrize(("bash", "part"), SILENT, ids=lambda value: value[:40])
def test_where_it_is_not_known_the_script_is_kept_and_resume_submits_once(
    bash: str, part: str, command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in bash:
        monkeypatch.setattr(scheduler, "SECONDS", 0.3)
    fake.sbatch(bash)
    answer = command(*on_slurm, "id=kept")
    run = Path("runs/toy/kept").resolve()
    refused(answer, 4, part, f"the script is kept in {run}", f"python -m launcher resume {run}")
    assert queued(run) == []
    assert (run / "job.sh").read_text() == command("render", *on_slurm, "id=kept").out
    fake.sbatch("accept 5; echo 5")
    assert command("resume", str(run)).code == 0
    assert queued(run) == ["5"]
    assert len(fake.submitted) == 2


def test_a_job_log_that_is_a_link_is_none_when_the_job_is_submitted(
    command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, tmp_path: Path
) -> None:
    """The scheduler opens it, and appends where it leads: to a file of mine, in a copy of somebody else's run."""
    fake.sbatch("exit 1")
    command(*on_slurm, "id=kept")
    (Path("runs/toy/kept") / "job.log").symlink_to(tmp_path / "mine")
    fake.sbatch("accept 5; echo 5")
    assert command("resume", "kept").code == 0
    assert not (Path("runs/toy/kept") / "job.log").is_symlink()


def test_a_job_that_shows_up_late_is_not_submitted_twice(command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm) -> None:
    fake.sbatch("accept 77; exit 137")
    fake.squeue(f"fail 'squeue: error: {UNREACHABLE}'")
    refused(command(*on_slurm, "id=late"), 4, "the controller does not answer", "python -m launcher resume")
    assert fake.submitted == []  # asked first whether there is a job: nobody knows
    fake.squeue(f'[ ! -s "$home/submitted" ] || fail "slurm_load_jobs error: {UNREACHABLE}"')
    refused(command("resume", "late"), 4, "sbatch was killed by signal 9", "the script is kept")
    fake.squeue(":")
    refused(command("resume", "late"), 3, "is pending as job 77 already")
    assert len(fake.submitted) == 1


def test_without_a_controller_the_run_is_kept_and_submitted_later(command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm) -> None:
    fake.everywhere(f"fail 'sbatch: error: {UNREACHABLE}'")
    refused(command(*on_slurm, "id=down"), 4, f"the controller does not answer ({UNREACHABLE})", "the script is kept in", "resume")
    refused(command("resume", "down"), 4, f"the controller does not answer ({UNREACHABLE})")
    for name, bash in (("squeue", ":"), ("sbatch", "accept 8; echo '8;there'")):
        fake.answers(name, bash)
    assert command("resume", "down").out.startswith("job     8\n")
    assert len(fake.submitted) == 1


# ---------------------------------------------------------------- sbatch refuses

FAILED = "sbatch: error: Batch job submission failed: "
REFUSALS = (
    (FAILED + "Invalid account or account/partition combination specified",),
    (FAILED + "Invalid qos specification",),
    (FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",),
    ("sbatch: error: invalid partition specified: nope", FAILED + "Invalid partition name specified"),
    ("sbatch: error: CPU count per node can not be satisfied", FAILED + "Requested node configuration is not available"),
    ("sbatch: error: Memory specification can not be satisfied", FAILED + "Requested node configuration is not available"),
    ("sbatch: error: Invalid generic resource (gres) specification",),
    (FAILED + "Requested time limit is invalid (missing or exceeds some limit)",),
    (FAILED + "Node count specification invalid",),
    (FAILED + "I/O error writing script/environment to file", "sbatch: error: Disk quota exceeded"),
    (FAILED + "Job script is too large (16777216 bytes)",),
    ("sbatch: unrecognized option '--segment=3'", 'Try "sbatch --help" for more information'),
    ("sbatch: error: lua: please name an account", FAILED + "Unspecified error"),
    (FAILED + "Access/permission denied",),
    (FAILED + "Job dependency problem",),
    (FAILED + "Invalid license specification",),
    ("sbatch: fatal: Could not establish a configuration source",),
)


@pytest.mark.parametrize(
    ("place", "texts"),
    [("test_only", texts) for texts in REFUSALS] + [("sbatch", texts) for texts in REFUSALS[::4]],
    ids=lambda value: value if isinstance(value, str) else value[0][-30:],
)
def test_a_refusal_is_one_line_in_sbatchs_own_words(
    place: str, texts: tuple[str, ...], command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.answers(place, f"fail {' '.join(map(shlex.quote, texts))}")
    own = [re.sub(r"^sbatch: (error: )?", "", text) for text in texts]
    refused(command(*on_slurm), 4, f"sbatch refused: {'; '.join(own)}")
    assert len(fake.submitted) == (place == "sbatch")
    fake.nothing_is_left()


def test_a_job_that_only_waits_for_a_node_is_not_refused(command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm) -> None:
    fake.test_only("fail 'allocation failure: Requested node configuration is not available'")
    refused(command(*on_slurm), 4, "sbatch refused: allocation failure: Requested node configuration is not available")
    fake.nothing_is_left()
    fake.sinfo("echo idle; echo drained")
    answer = command(*on_slurm)
    assert answer.out.startswith("job     123 (estimated start unknown: some nodes are down or drained)\n")
    for states, missing in (
        ("down* idle", True),
        ("draining", True),
        ("maint", True),
        ("idle*", True),
        ("mixed$", True),
        ("idle~ planned", False),
    ):
        fake.sinfo(f"printf '%s\\n' {states}")
        assert scheduler._nodes_are_missing() is missing


def test_a_refused_resume_leaves_the_run_as_it_was(command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm) -> None:
    fake.sbatch("exit 1")
    refused(command(*on_slurm, "id=kept"), 4, "the script is kept")
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    fake.sbatch(f"fail '{FAILED}Invalid qos specification'")
    refused(command("resume", "kept"), 4, "sbatch refused: Batch job submission failed: Invalid qos specification")
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------- several at once


def test_two_runs_of_one_id_in_two_places_are_two_jobs(command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm) -> None:
    for number, place in enumerate(("here", "there")):
        fake.sbatch(f"accept {number}; kill -9 $$")
        answer = command(*on_slurm, "id=same", f"runs_dir={place}")
        assert (answer.code, queued(run_dir(answer))) == (0, [str(number)])


def test_two_resumes_at_once_submit_once(
    command: Command, on_slurm: tuple[str, ...], fake: FakeSlurm, start: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.sbatch("exit 1")
    command(*on_slurm, "id=kept")
    fake.sbatch("sleep 1; accept 6; echo 6")
    both = [start("resume", "kept", env={"PATH": str(fake.bin)}) for _ in range(2)]
    codes = sorted(process.wait(timeout=60) for process in both)
    assert (codes, len(fake.submitted)) == ([0, 3], 2)
    lost = next(process for process in both if process.returncode)
    assert lost.err.read_text().count("\n") == 1
    assert "is pending as job 6 already" in lost.err.read_text()


def test_a_program_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    script = f"sleep 300 & echo $! >{tmp_path}/pid; wait"
    with pytest.raises(NoAnswer, match="bash did not answer within 1 s"):
        submit.ask(["bash", "-c", script], 0.6)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 5, f"the end of {pid}")
    assert submit.ask(["cat"], 5, "é…\n" * 100_000).out == "é…\n" * 100_000
    assert submit.ask(["true"], 5, "x" * 1_000_000).status == 0
