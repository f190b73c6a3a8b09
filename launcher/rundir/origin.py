"""Where a run was made ready to run: it may have been moved since, or be a copy (docs/decisions/0041-a-run-is-where-it-is.md)."""

from __future__ import annotations

import re
from pathlib import Path

from launcher.errors import RunError
from launcher.rundir.rundir import RunDir
from launcher.trust import reading

_JOB, _CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"), re.compile(r"[\w.-]{0,99}")
"""What of a ledger becomes an argument of the scheduler's programs."""


def is_at(run: RunDir, planned: str) -> bool:
    """Whether `planned` leads there, by whatever name or mount."""
    try:
        return run.path.samefile(planned)
    except (OSError, ValueError):
        return False


def original(run: RunDir) -> Path | None:
    """The run that this one is a copy of, as long as it has not gone on by itself; None of a run that was moved, or is where it was.

    A copy has the first line of its original's ledger, and that one still stands where the plan says.
    """
    try:
        other = RunDir(run.read_plan().run_dir)
    except RunError:
        return None
    try:
        if is_at(run, str(other)) or not other.plan.is_file():
            return None
    except PermissionError:  # it may be there
        return other.path
    except OSError:  # what is no path of this machine, as one with a name of a thousand characters
        return None
    mine = _first_line(run)  # a ledger that was left out of the copying says nothing
    return other.path if mine in (b"", _first_line(other)) else None


def own_jobs(run: RunDir) -> list[str]:
    """The scheduler's jobs that this run was given, oldest first: not those of the run that it is a copy of. Of one that was given to
    another cluster than the one here, `12;there`.
    """
    jobs: list[str] = []
    for event in run.read_events():
        job, cluster = str(event.get("job")), str(event.get("cluster") or "")
        if event["event"] == "queued" and _JOB.fullmatch(job) and _CLUSTER.fullmatch(cluster):
            jobs.append(f"{job};{cluster}" if cluster else job)
        elif event["event"] == "moved" and event.get("copy") is True:
            jobs = []
    return [] if jobs and original(run) is not None else jobs


def _first_line(run: RunDir) -> bytes:
    try:
        with reading.opened(run.events) as ledger:
            return ledger.read(reading.LINE_BYTES).partition(b"\n")[0]
    except OSError:
        return b""
