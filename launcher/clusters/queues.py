"""What schedulers say of runs now: one question to each for all of them. What it means is the verdict's (launcher/verdict/standing.py)."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.errors import ClusterError
from launcher.rundir.rundir import RunDir
from launcher.verdict import standing
from launcher.verdict.jobs import Job, keyed
from launcher.verdict.standing import Queue


def ask(runs: Sequence[RunDir]) -> Queue:
    """One question for all these runs to each cluster they were sent to, none where none of them is a batch job that may still change.
    What one of them does not answer says nothing of the others."""
    clusters = dict.fromkeys(standing.job_ids(run)[-1].partition(";")[2] for run in runs if standing.may_change(run))
    found: dict[str, Job] = {}
    silent: dict[str, str] = {}
    for cluster in clusters:
        from launcher.clusters.slurm import scheduler  # most runs are on this machine

        try:
            found |= scheduler.jobs(clusters=cluster)
        except ClusterError as error:
            silent[cluster] = str(error)
    return Queue({**{keyed(job.number, job.cluster): job for job in found.values()}, **found}, silent)
