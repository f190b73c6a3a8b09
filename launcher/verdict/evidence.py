"""What an attempt left behind, read from its end: reports and logs of ranks, torchrun's tables, lines of the batch shell and the scheduler.

Every file may be missing, torn, huge or no text at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launcher.plan import MOST_PROCESSES
from launcher.rundir import progress
from launcher.rundir.rundir import RunDir
from launcher.trust import reading

_TAIL_BYTES = 65_536
_LINE_CHARACTERS = 1_000
"""Of a line that is longer, the rest is not looked at: it may be a whole tensor."""

_REPORT = re.compile(r"error(?:\.(\d{1,9}))?\.json")
_RANK = re.compile(r"rank_(\d{1,9})\.log")
_AGENT = re.compile(r"agent_(\d{1,9})\.log")
_TABLE = re.compile(r"(?:time\s*: (\S+)\n\s*host\s*: (\S+)\n\s*)?rank\s*: (\d{1,9}) .*\n(\s*exitcode\s*: (-?\d{1,9})\b.*)")
"""torchrun's table of failures: when, where, which rank, and how it ended (below zero: the signal)."""
_START = re.compile(r"launcher: attempt (\d{1,9}): job")


class Shown(NamedTuple):
    """A line that shows something."""

    path: Path
    text: str


class Report(NamedTuple):
    """error.json of the first start, error.<n>.json of torchrun's n-th restart: what the first rank to fail left."""

    restart: int
    rank: int
    host: str
    step: int
    time: float
    exit_code: int
    exception: str
    message: str
    traceback: str
    """Empty for an error that is the user's to read."""
    refused: bool = False
    """Before anything began: another attempt is at it, or this is not the world that was promised."""

    @property
    def raised(self) -> str:
        return f"{self.exception}: {self.message}" if self.traceback else self.message


class Death(NamedTuple):
    """A process that torchrun saw end with a failure."""

    rank: int
    code: int
    host: str
    node: int
    """Its number in the job."""
    time: float
    shown: Shown


def newest_report(run: RunDir, attempt: int) -> Report | None:
    found = [(int(name[1] or 0), path) for path in run.attempt(attempt).glob("error*.json") if (name := _REPORT.fullmatch(path.name))]
    if not found:
        return None
    restart, path = max(found)
    try:
        raw = reading.record(reading.whole(path))
        if (rank := reading.whole_number(raw.get("rank"), MOST_PROCESSES)) is None:
            return None
        return Report(
            restart=restart,
            rank=rank,
            host=str(raw.get("host") or ""),
            step=reading.whole_number(raw.get("step")) or 0,
            time=reading.number(raw.get("time")) or 0.0,
            exit_code=reading.whole_number(raw.get("exit_code"), 255) or 1,
            exception=str(raw.get("exception") or ""),
            message=str(raw.get("message") or ""),
            traceback=str(raw.get("traceback") or ""),
            refused=raw.get("refused") is True,
        )
    except (OSError, ValueError):
        return None  # torn: the disk was full


def rank_logs(run: RunDir, attempt: int) -> list[tuple[int, Path]]:
    return _numbered(run.attempt(attempt), "rank_*.log", _RANK)


def agent_logs(run: RunDir, attempt: int) -> list[tuple[int, Path]]:
    """By the number of the node in the job."""
    return _numbered(run.attempt(attempt), "agent_*.log", _AGENT)


def _numbered(place: Path, glob: str, pattern: re.Pattern[str]) -> list[tuple[int, Path]]:
    return sorted((int(name[1]), path) for path in place.glob(glob) if (name := pattern.fullmatch(path.name)))


def deaths(run: RunDir, attempt: int) -> list[Death]:
    """Of all nodes, the first one first."""
    found: list[Death] = []
    for node, path in agent_logs(run, attempt):
        for when, host, rank, line, code in reversed(_TABLE.findall("\n".join(tail(path)))):  # the root cause stands last
            found.append(Death(int(rank), int(code), host, node, seconds(when.replace("_", "T")), Shown(path, " ".join(line.split()))))
    return sorted(found, key=lambda death: death.time)


def job_lines(run: RunDir, attempt: int) -> list[str]:
    """Of job.log, the part of one attempt: all attempts append to it."""
    lines = tail(run.log, 4 * _TAIL_BYTES)
    starts = [(index, int(mark[1])) for index, line in enumerate(lines) if (mark := _START.search(line))]
    begin = max((index for index, number in starts if number == attempt), default=None)
    if begin is None:  # it came no further, or its start is before the tail
        begin = max((index + 1 for index, number in starts if number < attempt), default=0)
    end = min((index for index, number in starts if index >= begin and number != attempt), default=len(lines))
    return lines[begin:end]


def ended_by_prelude(events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it ended the newest job, before that had an attempt."""
    told = [event for event in events if event["event"] in ("queued", "attempt", "prelude")]
    return bool(told) and told[-1].get("ends") is True


def prelude(events: Sequence[Mapping[str, Any]]) -> str:
    """What failed in a site's own lines, in the newest attempt or before it began; empty where nothing did."""
    told, of = "", None
    for event in events:
        if event["event"] == "prelude":
            told, of = str(event.get("reason")), event.get("attempt")
        elif event["event"] == "attempt" and event.get("attempt") != of:
            told = ""
    return told


def last_word(run: RunDir, attempt: int) -> tuple[str, str]:
    """How the batch shell says that the attempt ended, in one word and in its line of job.log; empty where it was killed first."""
    written = tail(run.attempt(attempt) / "ended")
    word = written[0].strip() if written else ""
    name = "requeued" if word.startswith("requeued-") else word
    said = re.compile(rf"launcher: (?:attempt {attempt:03d} )?{re.escape(name)}: ")
    return word, next((line for line in reversed(job_lines(run, attempt)) if name and said.search(line)), "")


def step(run: RunDir, attempt: int, rank: int | None = None) -> int | None:
    """How far a rank had come, or rank 0 where nobody knows it of that one."""
    report = newest_report(run, attempt)
    if report is not None and report.rank == rank:
        return report.step
    return next((shown.step for line in reversed(tail(run.rank_log(attempt, 0))) if (shown := progress.parse(line))), None)


def tail(path: Path, limit: int = _TAIL_BYTES) -> list[str]:
    """The last lines of a file, each no longer than can be shown; none of what is no file."""
    return [line[:_LINE_CHARACTERS] for line in reading.last_lines(path, limit)]


def changed(path: Path) -> float:
    """Seconds since the epoch; 0 where it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def seconds(iso: str) -> float:
    """Local time as schedulers and torchrun write it, since the epoch; 0 where it is none."""
    from datetime import datetime  # here: a table of runs has no time but the clock's

    try:
        return datetime.fromisoformat(iso).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
