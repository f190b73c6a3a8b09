"""A job as its scheduler tells of it. What the scheduler's own words mean is for its cluster to say (launcher/clusters/protocol.py)."""

from __future__ import annotations

from dataclasses import dataclass

QUEUED, RUNNING, SUSPENDED, ENDING, OVER, UNKNOWN = "queued", "running", "suspended", "ending", "over", ""
"""Phases of a job. UNKNOWN is as alive as RUNNING: where it runs after all, a second job would train beside it."""
PLAIN = ("COMPLETED", "FAILED")
"""States that say no more than that the job is over: the run directory knows more."""


@dataclass(frozen=True)
class Job:
    """What a scheduler says of one job now."""

    id: str
    """As its programs take it, and the ledger keeps it."""
    state: str
    """One word, for people. Of a job that is over one of PLAIN, or CANCELLED, PREEMPTED, TIMEOUT, NODE_FAIL or OUT_OF_MEMORY where it
    means these, or the scheduler's own word, which is shown as it is."""
    phase: str
    reason: str = ""
    """Why it waits, in the scheduler's word."""
    nodes: str = ""
    start: str = ""
    """When it is expected to start; empty or N/A where nobody knows."""
    submitted: str = ""
    elapsed: str = ""
    cluster: str = ""
    """Of a scheduler that has several clusters: which; empty for the one that answers where nobody names another."""

    @property
    def active(self) -> bool:
        return self.phase != OVER

    @property
    def key(self) -> str:
        """As `origin.own_jobs` has it: two clusters may have jobs of one number."""
        return keyed(self.id, self.cluster)


def keyed(number: str, cluster: str) -> str:
    return f"{number};{cluster}" if cluster else number


def waiting(job: Job) -> str:
    """Why a pending job waits, since when, until when."""
    start = "" if job.start in ("N/A", "") else f", estimated start {job.start}"
    return f"{job.state.lower()} since {job.submitted} ({job.reason}){start}"
