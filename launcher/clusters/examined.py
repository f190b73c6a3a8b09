"""An examination of the machines, to its end: here, or as a job. Nothing of it stays behind, however it ends."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence

from launcher.clusters import submit
from launcher.clusters.protocol import Cluster
from launcher.doctor.findings import report_file
from launcher.errors import ClusterError, Interrupted
from launcher.rundir.rundir import RunDir
from launcher.trust.ending import ending

SECONDS = 300.0
"""From the start of its processes to the report, at most."""
QUEUE_SECONDS = 1800.0
"""In the queue."""
GRACE_SECONDS = 15.0
"""From the report to the end of the last process; what hangs then is killed with the job."""
ENDED_BY_OTHERS = ("CANCELLED", "PREEMPTED", "TIMEOUT", "DEADLINE")
POLL_SECONDS = 0.2
ASK_EVERY_SECONDS = 3.0


def here_and_now(here: RunDir, argv: Sequence[str], grace: float = 0.0) -> int:
    """Start the script and wait for its processes. Returns the attempt."""
    with ending():
        process = submit.start(argv)
        try:
            process.wait(timeout=SECONDS)
        except KeyboardInterrupt as told:
            raise Interrupted("stopped before the examination was over", told) from None
        except subprocess.TimeoutExpired:
            pass
        finally:
            submit.end(process, grace)  # its processes die with it
    attempt = here.attempt_of(process.pid)
    if attempt is None:
        raise ClusterError(f"{here.script} ended with status {process.returncode} before its first process; run it by hand to see why")
    return attempt


def in_queue(cluster: Cluster, here: RunDir, when: str) -> int:
    """Submit, wait in the queue and for the report. Returns the attempt."""
    over = False
    with ending():
        try:
            cluster.start(here, when)
            print("waiting for the report (Ctrl-C cancels the job)", file=sys.stderr, flush=True)
            _wait(cluster, here)
            over = True
        except KeyboardInterrupt as told:
            raise Interrupted("stopped before the examination was over; its job is cancelled", told) from None
        finally:
            if not over:
                _cancel(cluster, here)
    return 0


def _wait(cluster: Cluster, here: RunDir) -> None:
    """Until the batch shell has written its last word, or the job is gone, or the report is there and a process hangs.

    Raises ClusterError where the job does not start, or is ended by others.
    """
    limit = _Limit(QUEUE_SECONDS)
    question = 0.0
    while not (here.attempt(0) / "ended").exists():
        if here.attempt(0).exists():
            limit.lower("run", SECONDS)
        if report_file(here, 0).exists():
            limit.lower("report", GRACE_SECONDS)
        if limit.over:
            if not limit.lowered:
                raise ClusterError(f"the job did not start within {QUEUE_SECONDS / 60:.0f} min{_waits_for(cluster, here)}; it is cancelled")
            _cancel(cluster, here)
            return
        if time.monotonic() > question:
            question = time.monotonic() + ASK_EVERY_SECONDS
            if _is_gone(cluster, here):
                return
        time.sleep(POLL_SECONDS)


class _Limit:
    """Until when to wait: shorter, once, for each thing that has come."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.lowered: set[str] = set()

    def lower(self, what: str, seconds: float) -> None:
        if what not in self.lowered:
            self.lowered.add(what)
            self._until = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self._until


def _is_gone(cluster: Cluster, here: RunDir) -> bool:
    """Raises ClusterError where the scheduler ended the job: what its processes left then says nothing about the nodes."""
    queue = cluster.jobs([here])
    job = queue.jobs.get(here.path)
    if job is not None and job.state in ENDED_BY_OTHERS:
        raise ClusterError(f"job {job.id} was ended before the examination was over: {job.state.lower()}")
    return queue.answers_for(here) and (job is None or not job.active)


def _waits_for(cluster: Cluster, here: RunDir) -> str:
    with contextlib.suppress(ClusterError):
        job = cluster.job_of(here)
        return f" ({job.reason})" if job is not None else ""
    return ""


def _cancel(cluster: Cluster, here: RunDir) -> None:
    """Also where the submission itself was interrupted: the queue knows the job by its name."""
    with contextlib.suppress(ClusterError):
        job = cluster.job_of(here)
        if job is not None:
            here.log_event("cancelled", job=job.id)
            cluster.cancel([job])
