"""A job as its scheduler tells of it, and which of the scheduler's words mean that it waits, runs or is over."""

from __future__ import annotations

import re
from dataclasses import dataclass

OVER = frozenset(("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"))
"""A list that is closed: in a state that is not known here a job may still run, and a second one would train beside it."""
WAITING = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"))
RUNNING = frozenset(("RUNNING", "RESIZING", "SIGNALING"))
"""While it gets a signal or another size, a job is as running as before."""
SUSPENDED = frozenset(("SUSPENDED", "STOPPED"))
ENDING = frozenset(("COMPLETING", "STAGE_OUT"))


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
    directory: str = ""
    """Where it works: of a run its own directory. Empty where squeue does not say."""
    cluster: str = ""
    """Empty for the one that answers where nobody names another."""

    @property
    def active(self) -> bool:
        return not is_over(self.state)

    @property
    def key(self) -> str:
        """As sbatch prints it: two clusters may have jobs of one number."""
        return keyed(self.id, self.cluster)


def keyed(number: str, cluster: str) -> str:
    return f"{number};{cluster}" if cluster else number


def state_of(words: str) -> str:
    """A state as squeue, scontrol and sacct spell it: `CANCELLED by 1000`, `COMPLETED+COMPLETING`, in small letters."""
    return re.sub(r"\s+BY\s.*", "", words.strip().upper())


def is_over(state: str) -> bool:
    """Whether nothing more comes of a job: what is requeued, or copies its files, bears a flag beside the word for its end."""
    return all(word in OVER for word in re.split(r"[+,]", state_of(state)))


def waiting(job: Job) -> str:
    """Why a pending job waits, since when, until when."""
    start = "" if job.start in ("N/A", "") else f", estimated start {job.start}"
    return f"{job.state.lower()} since {job.submitted} ({job.reason}){start}"
