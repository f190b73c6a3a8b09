"""Giving a run to SLURM, not before everything that can be asked has been asked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.clusters.slurm import limits, prelude_files, scheduler, site
from launcher.clusters.slurm.states import SlurmJob
from launcher.errors import ConfigError, NoAnswer, NoScheduler
from launcher.rundir import origin
from launcher.rundir.rundir import RunDir, read_text

if TYPE_CHECKING:
    from launcher.clusters.slurm import Slurm
    from launcher.compose.freeze import Frozen

LOCAL_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/proc")
"""Directories that each machine has for itself, whatever is mounted elsewhere."""


def check(cluster: Slurm, frozen: Frozen) -> str:
    """Ask whatever can be asked before anything is written. Returns when the job would start, as far as the scheduler knows.

    Raises ConfigError or ClusterError; NoScheduler where this is no machine of the cluster. A controller that does not answer is no
    reason to refuse here: the run directory is kept then, for another try.
    """
    if shutil.which("sbatch") is None:
        raise NoScheduler("sbatch: not found; type this on a login node of the cluster, or cluster=local to train on this machine")
    check_shared(cluster, frozen.plan.run_dir)
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


def check_shared(cluster: Slurm, path: str) -> None:
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


def submit(cluster: Slurm, here: RunDir) -> str:
    """Returns the job as sbatch prints it: `12`, or `12;there`. Raises ClusterError where it refused, NoAnswer where it is not known
    whether there is a job now.
    """
    plan = here.read_plan()
    allowed = site.environment(read_text(here.script))
    argv = with_site(cluster.submit_argv(plan), cluster)
    return scheduler.submit(argv, f"{plan.name}.{plan.id}", clusters_of(cluster), allowed).key


def estimate(cluster: Slurm, here: RunDir) -> str:
    script = read_text(here.script)
    return scheduler.estimate(cluster.submit_argv(here.read_plan()), script, site=site.environment(script))


def job_of(cluster: Slurm, here: RunDir) -> SlurmJob | None:
    """Where its last job went, where it is about to go, and where its reply may have been lost. Raises ClusterError."""
    jobs, plan = origin.own_jobs(here), here.read_plan()
    name, place = f"{plan.name}.{plan.id}", plan.run_dir if origin.original(here) is None else str(here)
    asked = [*(number.partition(";")[2] for number in jobs[-1:]), clusters_of(cluster)]
    for each in dict.fromkeys(asked):
        for job in scheduler.jobs(clusters=each).values():
            if job.active and (job.key in jobs or scheduler.is_job_of(job, name, place)):
                return job
    return None
