"""Giving a run to a batch scheduler: once, with the code as it is now, and not before everything that can be asked has been asked."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from launcher.clusters.slurm import Slurm, limits, prelude_files, scheduler, site
from launcher.compose.freeze import Frozen, stored_cluster
from launcher.errors import ConfigError, NoAnswer, NoScheduler, RunError
from launcher.rundir import lock, origin
from launcher.rundir.rundir import RunDir, read_text
from launcher.verdict.jobs import Job

LOCAL_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/proc")
"""Directories that each machine has for itself, whatever is mounted elsewhere."""


def check(cluster: Slurm, frozen: Frozen) -> str:
    """Ask whatever can be asked before anything is written. Returns when the job would start, as far as the scheduler knows.

    Raises ConfigError or ClusterError; NoScheduler where this is no machine of the cluster. A controller that does not answer is no
    reason to refuse here: the run directory is kept then, for another try.
    """
    if shutil.which("sbatch") is None:
        raise NoScheduler("sbatch: not found; type this on a login node of the cluster, or cluster=local to train on this machine")
    _check_shared(cluster, frozen.plan.run_dir)
    if cluster.prelude is not None:
        prelude_files.check(cluster.prelude)
    try:
        if shutil.which("scontrol") is not None:
            limits.check(replace(cluster, partition=cluster.partition or site.partition()), scheduler.partitions(clusters_of(cluster)))
        argv, allowed = with_site(cluster.submit_argv(frozen.plan), cluster), site.environment(frozen.script)
        return scheduler.estimate(argv, frozen.script, clusters_of(cluster), allowed)
    except NoAnswer:
        return "unknown"


def clusters_of(cluster: Slurm) -> str:
    """Which clusters may take the job, with commas between; empty for the one of this machine."""
    return str(cluster.sbatch.get("clusters") or site.clusters())


def with_site(argv: Sequence[str], cluster: Slurm) -> list[str]:
    """The arguments of sbatch, with what the login shell says and the plan leaves open."""
    more = [f"--clusters={clusters}"] if not cluster.sbatch.get("clusters") and (clusters := site.clusters()) else []
    return [*argv[:-1], *more, argv[-1]]


def ledger(given: scheduler.Given, suffix: str = "") -> dict[str, str]:
    """What the ledger keeps of a job."""
    return {"job": f"{given.number}{suffix}"} | ({"cluster": given.cluster} if given.cluster else {})


def _check_shared(cluster: Slurm, path: str) -> None:
    """A run directory that the nodes do not see fails with no log anywhere: sbatch accepts it."""
    if cluster.shared_filesystem:
        return
    place = os.path.realpath(path)
    if any(place.startswith(f"{local}/") for local in LOCAL_PLACES) or _file_system(place) in ("tmpfs", "ramfs"):
        raise ConfigError(
            f"runs_dir: {place} is on this machine alone, the compute nodes would not see it; choose a directory on a shared file system, "
            "or type cluster.shared_filesystem=true if they do"
        )


def _file_system(path: str) -> str:
    """Type of the file system that holds `path`, or will: its longest mount point in /proc/mounts."""
    best, kind = "", ""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    for fields in mounts:
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1])
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def copy_code(frozen: Frozen, cluster: Slurm, here: RunDir) -> None:
    """What the job needs beside the frozen inputs. Raises RunError."""
    if frozen.code is not None and frozen.code.place is None:
        frozen.code.source.copy_to(here.code)
    if cluster.prelude is not None:
        prelude_files.copy(Path(cluster.prelude), here.prelude)


def queue(here: RunDir, cluster: Slurm, start: str = "") -> None:
    """Submit a run's script unless it is queued or running already. Raises RunError where it is, ClusterError where sbatch refused,
    NoAnswer where it is not known whether there is a job now.
    """
    plan = here.read_plan()
    name = f"{plan.name}.{plan.id}"
    with _one_at_a_time(here):
        try:
            job = active_job(here, clusters_of(cluster))
            if job is not None:
                raise RunError(already(here, job))
            if here.log.is_symlink():
                here.log.unlink()  # the scheduler would write where it leads: it may be a copy of somebody else's run
            allowed = site.environment(read_text(here.script))
            given = scheduler.submit(with_site(cluster.submit_argv(plan), cluster), name, clusters_of(cluster), allowed)
        except NoAnswer as error:
            raise NoAnswer(
                f"{error}; the script is kept in {here}, and nothing is submitted twice by trying again: python -m launcher resume {here}"
            ) from error
        here.log_event("queued", **ledger(given))
    print(_told(here, given, start))


def already(here: RunDir, job: Job) -> str:
    return (
        f"{here} is {job.state.lower()} as job {job.id} already; watch it with: python -m launcher logs {here} -f, end it with: "
        f"python -m launcher cancel {here}"
    )


def active_job(here: RunDir, clusters: str | None = None) -> Job | None:
    """The job that this run has in the queue, None where it has none. `clusters`: where it is about to go, beside where its last job
    went and where its reply may have been lost. Raises ClusterError.
    """
    jobs = origin.own_jobs(here)
    plan, stored = here.read_plan(), stored_cluster(here)
    name, place = f"{plan.name}.{plan.id}", plan.run_dir if origin.original(here) is None else str(here)
    asked = [*(number.partition(";")[2] for number in jobs[-1:]), *([clusters_of(stored)] if isinstance(stored, Slurm) else []), clusters]
    for each in dict.fromkeys(word for word in asked if word is not None):
        for job in scheduler.jobs(clusters=each).values():
            if job.active and (job.key in jobs or scheduler.is_job_of(job, name, place)):
                return job
    return None


@contextmanager
def _one_at_a_time(here: RunDir) -> Generator[None]:
    """Two `resume`s typed at once: the second looks at the queue only when the first one's job is in it."""
    with lock.in_turn(here.path / ".submit"):
        yield


def _told(here: RunDir, given: scheduler.Given, start: str) -> str:
    run = shlex.quote(str(here))
    rows = [
        ("job", f"{given.number}{f' (estimated start {start})' if start else ''}"),
        ("watch", f"python -m launcher logs {run} -f"),
        ("state", f"python -m launcher status {run}"),
        ("cancel", f"python -m launcher cancel {run}"),
    ]
    return "\n".join(f"{name:<8}{value}" for name, value in rows)
