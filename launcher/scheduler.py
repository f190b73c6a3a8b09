"""Asking SLURM: what is queued, what it would say to a job, and giving it one. One query answers for all runs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.errors import ClusterError, NoAnswer, NoScheduler
from launcher.submit import Reply, ask

SECONDS = 30.0
"""What a controller under load may take to answer."""

PATIENCE = (2.0, 4.0)
"""Seconds until it is asked again for a job whose number was lost."""

ACTIVE = (
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "SUSPENDED",
    "COMPLETING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "STOPPED",
    "SIGNALING",
    "RESIZING",
)

_FORMAT = "%i|%A|%T|%r|%N|%S|%V|%M|%j|%Z"
_UNREACHABLE = re.compile(
    r"Unable to contact slurm controller|Connection refused|Connection timed out|Unable to establish control|Zero Bytes were transmitted"
    r"|Socket timed out|temporarily unable|in standby|Resource temporarily unavailable",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Job:
    """One line of squeue."""

    id: str
    """12, or 12_3 for a member of an array."""
    number: str
    """The number that the job itself sees as SLURM_JOB_ID."""
    state: str
    reason: str
    nodes: str
    start: str
    submitted: str
    elapsed: str
    name: str
    directory: str = ""
    """Where it works: of a run its own directory. Empty where squeue does not say."""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def jobs(name: str | None = None) -> dict[str, Job]:
    """Our jobs by id, those that ended in the last minutes too. Raises ClusterError."""
    argv = ["squeue", "--me", "--noheader", "--array", "--states=all", f"--format={_FORMAT}"]
    reply = ask([*argv, f"--name={name}"] if name else argv, SECONDS)
    if reply.status:
        raise _error("squeue", reply)
    lines = [line.split("|", 9) for line in reply.out.splitlines()]
    found = [Job(*fields) for fields in lines if len(fields) in (9, 10)]
    return {job.id: job for job in found}


def estimate(argv: Sequence[str], script: str) -> str:
    """When the job would start, in the scheduler's words. Raises ClusterError with its words where it would refuse the job, NoAnswer
    where nobody answers.

    It refuses here, but not from sbatch itself, a job that only has to wait for a node that is down.
    """
    options = [word for word in argv[1:-1] if not word.startswith("--chdir")]
    reply = ask([argv[0], "--test-only", *options], SECONDS, script)
    if reply.status and re.search("not available", reply.err) and _nodes_are_missing():
        return "unknown: some nodes are down or drained"
    if reply.status:
        raise _error("sbatch", reply)
    match = re.search(r"to start at (\S+)", reply.err)
    return match[1] if match else "unknown"


def _nodes_are_missing() -> bool:
    try:
        reply = ask(["sinfo", "--noheader", "--format=%T"], SECONDS)
    except ClusterError:
        return True
    return bool(reply.status) or any(not re.fullmatch(_USABLE, state) for state in reply.out.split())


_USABLE = r"(idle|mixed|allocated|completing|planned)[~#!%^@+-]?"
"""Of a node, with the mark that sinfo puts behind it; * is one that does not answer, $ one in maintenance."""


def submit(argv: Sequence[str], name: str) -> str:
    """The new job's id. `name` and directory are the job's own: where the reply is lost, they tell whether there is a job now.

    Raises ClusterError where sbatch refused, NoAnswer where it is not known what became of it.
    """
    directory = next((word.removeprefix("--chdir=") for word in argv if word.startswith("--chdir=")), "")
    try:
        reply = ask(list(argv), SECONDS)
    except NoAnswer as error:
        return _look_for(name, directory, str(error))
    words = reply.out.strip()
    if reply.status == 0:
        match = re.fullmatch(r"([0-9]+)(;\S+)?", words.splitlines()[-1].strip() if words else "")
        return match[1] if match else _look_for(name, directory, f"sbatch said {words[:80]!r} instead of a job id")
    error = _error("sbatch", reply)
    if isinstance(error, NoAnswer):
        return _look_for(name, directory, str(error))
    if reply.status < 0 or reply.status >= 128:  # the shell's way to say the same of what a script around sbatch ran
        number = -reply.status if reply.status < 0 else reply.status - 128
        return _look_for(name, directory, f"sbatch was killed by signal {number}")
    if words or not reply.err.strip():  # no complaint: something else went wrong, perhaps behind the submission
        return _look_for(name, directory, f"sbatch ended with status {reply.status} and said {words[:80]!r}")
    raise error


def is_job_of(job: Job, name: str, directory: str) -> bool:
    """Two runs of one name and id in different runs_dirs are two runs."""
    return job.name == name and (not job.directory or os.path.realpath(job.directory) == os.path.realpath(directory))


def _look_for(name: str, directory: str, problem: str) -> str:
    for patience in (0, *PATIENCE):
        time.sleep(patience)
        try:
            found = [job for job in jobs(name).values() if job.active and is_job_of(job, name, directory)]
        except NoScheduler:
            break
        except ClusterError:
            continue
        if found:
            return found[0].id.split("_")[0]
    raise NoAnswer(problem)


def cancel(ids: Sequence[str]) -> None:
    """Raises ClusterError."""
    reply = ask(["scancel", *ids], SECONDS)
    if reply.status and "already completed" not in reply.err and "Invalid job id" not in reply.err:
        raise _error("scancel", reply)


def signal(job: str, name: str, *, batch: bool = False) -> None:
    """To every process of the job's steps, or to its batch shell alone. Raises ClusterError."""
    reply = ask(["scancel", *(["--batch"] if batch else []), f"--signal={name}", job], SECONDS)
    if reply.status:
        raise _error("scancel", reply)


def partitions() -> dict[str, dict[str, str]]:
    """Every partition's settings as `scontrol show partition` has them, hidden ones too. Raises ClusterError."""
    reply = ask(["scontrol", "--all", "show", "partition", "--oneliner"], SECONDS)
    if reply.status:
        raise _error("scontrol", reply)
    records = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in reply.out.splitlines() if "PartitionName=" in line]
    return {record["PartitionName"]: record for record in records}


def settings() -> dict[str, str]:
    """`scontrol show config`. Raises ClusterError."""
    reply = ask(["scontrol", "show", "config"], SECONDS)
    if reply.status:
        raise _error("scontrol", reply)
    return dict(re.findall(r"^(\w+)\s*= (.*)$", reply.out, re.MULTILINE))


def _error(program: str, reply: Reply) -> ClusterError:
    if _UNREACHABLE.search(reply.err):
        return NoAnswer(f"{program}: the controller does not answer ({reply.words})")
    return ClusterError(f"{program} refused: {reply.words}")
