"""One question for all runs to each SLURM they were sent to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.clusters.slurm import scheduler
from launcher.clusters.slurm.states import SlurmJob
from launcher.errors import ClusterError
from launcher.rundir.rundir import RunDir
from launcher.verdict import standing
from launcher.verdict.jobs import keyed
from launcher.verdict.standing import Queue


def jobs(runs: Sequence[RunDir]) -> Queue:
    found: dict[str, SlurmJob] = {}
    silent: dict[str, str] = {}
    newest = {run.path: standing.job_ids(run)[-1] for run in runs}
    for cluster in dict.fromkeys(_cluster_of(key) for key in newest.values()):
        try:
            found |= scheduler.jobs(clusters=cluster)
        except ClusterError as error:
            silent[cluster] = str(error)
    known = {**{keyed(job.number, job.cluster): job for job in found.values()}, **found}
    unsaid: dict[Path, str] = {path: silent[_cluster_of(key)] for path, key in newest.items() if _cluster_of(key) in silent}
    return Queue({path: known[key] for path, key in newest.items() if key in known}, unsaid)


def _cluster_of(key: str) -> str:
    return key.partition(";")[2]
