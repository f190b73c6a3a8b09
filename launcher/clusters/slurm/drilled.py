"""What `drill` does to a job, as the cluster would do it on a bad night."""

from __future__ import annotations

from launcher.clusters.slurm import scheduler
from launcher.rundir.rundir import RunDir
from launcher.trust import writing
from launcher.verdict import standing


def strike(kind: str, here: RunDir) -> None:
    """Raises ClusterError."""
    job = standing.job_ids(here)[-1]
    if kind == "timeout":
        scheduler.signal(job, "USR2", batch=True)
    elif kind == "preempt":
        scheduler.signal(job, "TERM")
    else:
        if kind == "nodefail":
            writing.over(here.path / ".drill", "")
        scheduler.signal(job, "ABRT")  # KILL would be a cancel
