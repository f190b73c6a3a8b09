"""Asking SLURM: what is queued, what it would say to a job, and giving it one. One query answers for all runs."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from launcher.errors import ClusterError, NoAnswer
from launcher.submit import Reply, ask

SECONDS = 30.0
"""What a controller under load may take to answer."""

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

_FORMAT = "%i|%A|%T|%r|%N|%S|%V|%M|%j"
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

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def jobs(name: str | None = None) -> dict[str, Job]:
    """Our jobs by id, those that ended in the last minutes too. Raises ClusterError."""
    argv = ["squeue", "--me", "--noheader", "--array", "--states=all", f"--format={_FORMAT}"]
    reply = ask([*argv, f"--name={name}"] if name else argv, SECONDS)
    if reply.status:
        raise _error("squeue", reply)
    lines = [line.split("|", 8) for line in reply.out.splitlines()]
    found = [Job(*fields) for fields in lines if len(fields) == 9]
    return {job.id: job for job in found}


def estimate(argv: Sequence[str], script: str) -> str:
    """When the job would start, in the scheduler's words. Raises ClusterError with its words where it would refuse the job, NoAnswer
    where nobody answers."""
    options = [word for word in argv[1:-1] if not word.startswith("--chdir")]
    reply = ask([argv[0], "--test-only", *options], SECONDS, script)
    if reply.status:
        raise _error("sbatch", reply)
    match = re.search(r"to start at (\S+)", reply.err)
    return match[1] if match else "unknown"


def submit(argv: Sequence[str], name: str) -> str:
    """The new job's id. `name` is the job's own: where the reply is lost, it tells whether there is a job now.

    Raises ClusterError where sbatch refused, NoAnswer where it is not known what became of it.
    """
    try:
        reply = ask(list(argv), SECONDS)
    except NoAnswer as error:
        return _look_for(name, str(error))
    if reply.status == 0:
        match = re.fullmatch(r"(\d+)(;\S+)?", reply.out.strip().splitlines()[-1] if reply.out.strip() else "")
        return match[1] if match else _look_for(name, f"sbatch said {reply.out.strip()[:80]!r} instead of a job id")
    error = _error("sbatch", reply)
    if isinstance(error, NoAnswer):
        return _look_for(name, str(error))
    if reply.status < 0:
        return _look_for(name, f"sbatch was killed by signal {-reply.status}")
    raise error


def _look_for(name: str, problem: str) -> str:
    for patience in (0, 2, 4):
        time.sleep(patience)
        try:
            found = [job for job in jobs(name).values() if job.active]
        except ClusterError:
            break
        if found:
            return found[0].id.split("_")[0]
    raise NoAnswer(problem)


def cancel(ids: Sequence[str]) -> None:
    """Raises ClusterError."""
    reply = ask(["scancel", *ids], SECONDS)
    if reply.status and "already completed" not in reply.err and "Invalid job id" not in reply.err:
        raise _error("scancel", reply)


def partitions() -> dict[str, dict[str, str]]:
    """Every partition's settings as `scontrol show partition` has them. Raises ClusterError."""
    reply = ask(["scontrol", "show", "partition", "--oneliner"], SECONDS)
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
