"""Asking SLURM: what is queued, what it would say to a job, and giving it one. One query answers for all runs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from launcher.clusters.protocol import Account
from launcher.clusters.slurm.states import SlurmJob, is_over, phase_of, state_of
from launcher.clusters.submit import Reply
from launcher.clusters.submit import ask as ask_program
from launcher.errors import ClusterError, NoAnswer, NoScheduler
from launcher.verdict.jobs import Job, keyed

SECONDS = 30.0
"""What a controller under load may take to answer."""

ACCOUNTING_SECONDS = 5.0
"""What sacct may take. It is asked only where nobody else knows, and many sites do without it."""

PATIENCE = (2.0, 4.0)
"""Seconds until it is asked again for a job whose number was lost."""

_FORMAT = "%i|%A|%T|%r|%N|%S|%V|%M|%j|%Z"
_UNREACHABLE = re.compile(
    r"Unable to contact slurm controller|Connection refused|Connection timed out|Unable to establish control|Zero Bytes were transmitted"
    r"|Socket timed out|temporarily unable|in standby|Resource temporarily unavailable",
    re.IGNORECASE,
)


_WAITS = re.compile(
    r"partition (is )?(not available|(in )?down)|partition configuration not available now|reservation (?!.*(invalid|denied))"
    r"|nodes are busy|Required node not available|in held state|usage threshold|burst buffer",
    re.IGNORECASE,
)
"""Of what --test-only says: sbatch takes the job and it waits, or it depends (on EnforcePartLimits) and sbatch will say."""


def ask(argv: list[str], seconds: float, text: str = "", site: Mapping[str, str] | None = None) -> Reply:
    """Run a program of SLURM's, of whose own variables it sees those of `site` alone: typed inside a job, its `SLURM_*`, `SBATCH_*` and
    `SRUN_*` would be options of the new one, and `SQUEUE_FORMAT` and the like change what we read; `SLURM_CONF` says where it is,
    `SLURM_JWT` who we are. Raises ClusterError as `ask_program` does.
    """
    foreign = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SLURMD_")
    clean = {name: value for name, value in os.environ.items() if name in ("SLURM_CONF", "SLURM_JWT") or not name.startswith(foreign)}
    return ask_program(argv, seconds, text, {**clean, **(site or {})})


def jobs(name: str | None = None, clusters: str = "") -> dict[str, SlurmJob]:
    """Our jobs by key, those that ended in the last minutes too, on these clusters (`a,b`). Raises ClusterError."""
    # --all: in hidden partitions too; --user, for --me came with 20.02. REVOKED, of a federation, goes on in a sibling: it is not over
    argv = ["squeue", *_on(clusters), "--all", f"--user={os.getuid()}", "--noheader", "--array", "--states=all", f"--format={_FORMAT}"]
    reply = ask([*argv, f"--name={name}"] if name else argv, SECONDS)
    if reply.status or _UNREACHABLE.search(reply.err):
        raise _error(reply)
    found, here = dict[str, SlurmJob](), clusters if "," not in clusters and clusters != "all" else ""
    for line in reply.out.splitlines():
        if header := re.fullmatch(r"CLUSTER:\s*(\S+)", line.strip()):
            here = header[1]
        elif len(fields := line.split("|", 9)) in (9, 10):
            job = _job(fields, here)
            found[job.key] = job
    return found


def _job(fields: Sequence[str], cluster: str) -> SlurmJob:
    """One line of squeue, in the order of _FORMAT."""
    number, own, words, reason, nodes, start, submitted, elapsed, name, *directory = fields
    state = state_of(words)
    known = {"name": name, "number": own, "directory": "".join(directory)}
    return SlurmJob(number, state, phase_of(state), reason, nodes, start, submitted, elapsed, cluster, **known)


def _on(clusters: str) -> list[str]:
    return [f"--clusters={clusters}"] if clusters else []


def estimate(argv: Sequence[str], script: str, clusters: str = "", site: Mapping[str, str] | None = None) -> str:
    """When the job would start, in the scheduler's words. Raises ClusterError with its words where it would refuse the job, NoAnswer
    where nobody answers.

    It refuses here, but not from sbatch itself, a job that only has to wait: for a node or partition that is down, a reservation to begin.
    """
    options = [word for word in argv[1:-1] if not word.startswith("--chdir")]
    reply = ask([argv[0], "--test-only", *options], SECONDS, script, site)
    if reply.status and _WAITS.search(reply.err):
        return f"unknown: {reply.words}"
    if reply.status and re.search("not available", reply.err) and _nodes_are_missing(clusters):
        return "unknown: some nodes are down or drained"
    if reply.status:
        raise _error(reply)
    match = re.search(r"to start at (\S+)", reply.err)
    return match[1] if match else "unknown"


def _nodes_are_missing(clusters: str = "") -> bool:
    try:
        reply = ask(["sinfo", *_on(clusters), "--noheader", "--format=%T"], SECONDS)
    except ClusterError:
        return True
    return bool(reply.status) or any(not re.fullmatch(_USABLE, state) for state in re.sub(r"CLUSTER:.*", "", reply.out).split())


_USABLE = r"(idle|mixed|allocated|completing|planned)[~#!%^@+-]?"
"""Of a node, with the mark that sinfo puts behind it; * is one that does not answer, $ one in maintenance."""


class Given(NamedTuple):
    """What sbatch answered."""

    number: str
    cluster: str

    @property
    def key(self) -> str:
        return keyed(self.number, self.cluster)


def submit(argv: Sequence[str], name: str, clusters: str = "", site: Mapping[str, str] | None = None) -> Given:
    """The new job, and its cluster where it is not the one of this machine. `name` and directory are the job's own:
    where the reply is lost, they tell whether there is a job now.

    Raises ClusterError where sbatch refused, NoAnswer where it is not known what became of it.
    """
    directory = next((word.removeprefix("--chdir=") for word in argv if word.startswith("--chdir=")), "")
    try:
        reply = ask(list(argv), SECONDS, site=site)
    except NoAnswer as error:
        return _look_for(name, directory, clusters, str(error))
    words = reply.out.strip()
    if reply.status == 0:
        match = re.fullmatch(r"([0-9]+)(?:;(\S+))?", words.splitlines()[-1].strip() if words else "")
        return (
            Given(match[1], match[2] or "")
            if match
            else _look_for(name, directory, clusters, f"sbatch said {words[:80]!r} instead of a job id")
        )
    error = _error(reply)
    if isinstance(error, NoAnswer):
        return _look_for(name, directory, clusters, str(error))
    if reply.status < 0 or reply.status >= 128:  # the shell's way to say the same of what a script around sbatch ran
        number = -reply.status if reply.status < 0 else reply.status - 128
        return _look_for(name, directory, clusters, f"sbatch was killed by signal {number}")
    if words or not reply.err.strip():  # no complaint: something else went wrong, perhaps behind the submission
        return _look_for(name, directory, clusters, f"sbatch ended with status {reply.status} and said {words[:80]!r}")
    raise error


def is_job_of(job: SlurmJob, name: str, directory: str) -> bool:
    """Two runs of one name and id in different runs_dirs are two runs."""
    return job.name == name and (not job.directory or os.path.realpath(job.directory) == os.path.realpath(directory))


def _look_for(name: str, directory: str, clusters: str, problem: str) -> Given:
    for patience in (0, *PATIENCE):
        time.sleep(patience)
        try:
            found = [job for job in jobs(name, clusters).values() if job.active and is_job_of(job, name, directory)]
        except NoScheduler:
            break
        except ClusterError:
            continue
        if found:
            return Given(found[0].id.split("_")[0], found[0].cluster)
    raise NoAnswer(problem)


def cancel(found: Sequence[Job]) -> None:
    """Raises ClusterError."""
    problems: list[ClusterError] = []
    for cluster in dict.fromkeys(job.cluster for job in found):
        try:
            reply = ask(["scancel", *_on(cluster), *(job.id for job in found if job.cluster == cluster)], SECONDS)
        except ClusterError as error:
            problems.append(error)
            continue
        if reply.status and "already completed" not in reply.err and "Invalid job id" not in reply.err:
            problems.append(_error(reply))
    if problems:
        raise ClusterError("; ".join(map(str, problems)))


def signal(key: str, name: str, *, batch: bool = False) -> None:
    """To every process of the job's steps, or to its batch shell alone. Raises ClusterError."""
    job, _, cluster = key.partition(";")
    reply = ask(["scancel", *_on(cluster), *(["--batch"] if batch else []), f"--signal={name}", job], SECONDS)
    if reply.status:
        raise _error(reply)


def accounted(key: str) -> Account | None:
    """How a job ended that squeue no longer knows."""
    job, _, cluster = key.partition(";")
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        return None  # a ledger may hold anything
    what = ["--allocations", "--noheader", "--parsable2"]
    for fields in ("State,ExitCode,NodeList,Reason", "State,ExitCode,NodeList"):  # Reason came with 19.05
        try:
            reply = ask(["sacct", *_on(cluster), f"--jobs={job}", *what, f"--format={fields}"], ACCOUNTING_SECONDS)
        except ClusterError:
            return None
        if not reply.status or "Invalid field" not in reply.err:
            break
    words = reply.out.splitlines()[-1].split("|") if reply.out.strip() else [""]
    if reply.status or not words[0]:
        return None
    return Account(state_of(words[0]), is_over(words[0]), f"sacct: {' '.join(words)}")


def partitions(clusters: str = "") -> dict[str, dict[str, str]]:
    """Every partition's settings as `scontrol show partition` has them, hidden ones too. Raises ClusterError."""
    reply = ask(["scontrol", *_on(clusters), "--all", "show", "partition", "--oneliner"], SECONDS)
    if reply.status:
        raise _error(reply)
    records = [dict(re.findall(r"\b(\w+)=(\S*)", line)) for line in reply.out.splitlines() if "PartitionName=" in line]
    return {record["PartitionName"]: record for record in records}


def settings(clusters: str = "") -> dict[str, str]:
    """`scontrol show config`. Raises ClusterError."""
    reply = ask(["scontrol", *_on(clusters), "show", "config"], SECONDS)
    if reply.status:
        raise _error(reply)
    return dict(re.findall(r"^(\w+)\s*= (.*)$", reply.out, re.MULTILINE))


def _error(reply: Reply) -> ClusterError:
    if _UNREACHABLE.search(reply.err):
        return NoAnswer(f"{reply.program}: the controller does not answer ({reply.words})")
    hint = "; type cluster.gpu_request=gres" if re.search("unrecognized option.*gpus-per-node", reply.err) else ""  # it came with 19.05
    return ClusterError(f"{reply.program} refused: {reply.words}{hint}")
