"""`cancel RUN`: end it. A batch job is cancelled and never requeued; a run on this machine saves and stops."""

from __future__ import annotations

from launcher import batch, lock, scheduler
from launcher.errors import ConfigError, RunError
from launcher.rundir import find
from launcher.standing import job_ids


def cancel(words: list[str]) -> int:
    """Raises RunError where there is nothing to cancel, ClusterError where the scheduler does not do it."""
    if len(words) != 1:
        raise ConfigError("cancel takes one run: a path, an id or a name; for example: python -m launcher cancel cifar")
    run = find(words[0])
    if not job_ids(run):
        if not lock.is_held(run.lock):
            raise RunError(f"{run} is not running; nothing to cancel")
        run.stop.touch(mode=0o600)
        print(f"{run} saves at the next step boundary and stops")
        return 0
    job = batch.active_job(run)
    if job is None:
        raise RunError(f"{run} has no job in the queue; nothing to cancel")
    run.log_event("cancelled", job=job_ids(run)[-1])
    scheduler.cancel([job.id])
    print(f"job {job.id} of {run} is cancelled; what it has saved stays: python -m launcher resume {run}")
    return 0
