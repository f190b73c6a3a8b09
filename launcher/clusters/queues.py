"""What schedulers say of runs now: one question to each for all of them. What it means is the verdict's (launcher/verdict/standing.py)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import RunError
from launcher.rundir.rundir import RunDir
from launcher.verdict import standing
from launcher.verdict.jobs import Job
from launcher.verdict.standing import Queue

if TYPE_CHECKING:
    from launcher.clusters.protocol import Cluster


def ask(runs: Sequence[RunDir]) -> Queue:
    """One question for all these runs to each kind of cluster they were sent to, none where none of them is a batch job that may still
    change. What one of them does not answer says nothing of the others."""
    found: dict[Path, Job] = {}
    silent: dict[Path, str] = {}
    sent: dict[type[Cluster], list[RunDir]] = {}
    for run in runs:
        if standing.may_change(run):
            from launcher.clusters import kinds  # most runs are on this machine

            try:
                sent.setdefault(kinds.of(run), []).append(run)
            except RunError as error:
                silent[run.path] = str(error)
    for kind, theirs in sent.items():
        queue = kind.jobs(theirs)
        found |= queue.jobs
        silent |= queue.silent
    return Queue(found, silent)
