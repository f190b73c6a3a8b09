"""Which of SLURM's words mean that a job waits, runs or is over."""

from __future__ import annotations

import re
from dataclasses import dataclass

from launcher.verdict import jobs
from launcher.verdict.jobs import Job

OVER = frozenset(("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"))
"""A list that is closed: in a state that is not known here a job may still run, and a second one would train beside it."""
WAITING = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"))
RUNNING = frozenset(("RUNNING", "RESIZING", "SIGNALING"))
"""While it gets a signal or another size, a job is as running as before."""
SUSPENDED = frozenset(("SUSPENDED", "STOPPED"))
ENDING = frozenset(("COMPLETING", "STAGE_OUT"))


@dataclass(frozen=True)
class SlurmJob(Job):
    """One line of squeue. `id` is 12, or 12_3 for a member of an array."""

    number: str = ""
    """The number that the job itself sees as SLURM_JOB_ID."""
    name: str = ""
    directory: str = ""
    """Where it works: of a run its own directory. Empty where squeue does not say."""


def state_of(words: str) -> str:
    """A state as squeue, scontrol and sacct spell it: `CANCELLED by 1000`, `COMPLETED+COMPLETING`, in small letters."""
    return re.sub(r"\s+BY\s.*", "", words.strip().upper())


def is_over(state: str) -> bool:
    """Whether nothing more comes of a job: what is requeued, or copies its files, bears a flag beside the word for its end."""
    return all(word in OVER for word in re.split(r"[+,]", state_of(state)))


def phase_of(state: str) -> str:
    words = set(re.split(r"[+,]", state))
    if is_over(state):
        return jobs.OVER
    for phase, known in ((jobs.ENDING, ENDING), (jobs.SUSPENDED, SUSPENDED), (jobs.RUNNING, RUNNING)):
        if words & known:
            return phase
    return jobs.QUEUED if words <= WAITING else jobs.UNKNOWN
