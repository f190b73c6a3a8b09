"""One run: started by one command, watched until its results are there, its jobs are gone or its time is up."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from peers import reasons, scripts
from peers.conditions import ALLOCATION, Condition
from peers.contenders import Contender

POLL_SECONDS = 1.0
NO_RESULT = "ended without a result"
GONE_SECONDS = 10.0
"""Without any job this long, nothing will come any more: files may lag behind, and some jobs are queued one after the other."""


@dataclass
class Outcome:
    contender: str
    condition: str
    ok: bool
    reason: str
    seconds: float
    members: str
    command_status: int | None
    """None: the command had to be ended."""
    evidence: list[str] = field(default_factory=list[str])

    @property
    def cell(self) -> str:
        """What the table shows."""
        if not self.ok:
            return f"**{self.reason}**" if self.members.endswith("/1") else f"**{self.members}: {self.reason}**"
        return "ok" if not self.command_status else "ok, though the command reports an error"

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "cell": self.cell}


def run(contender: Contender, condition: Condition, place: Path, venv: Path) -> Outcome:
    shutil.rmtree(place, ignore_errors=True)
    directory = place / condition.directory
    directory.mkdir(parents=True)
    contender.prepare(directory, venv)
    if condition.wish.script:
        scripts.copy(directory)
    environment = {**contender.environment(directory, venv), **dict(condition.env)}
    argv = condition.wrap(contender.command(condition.wish))
    begun = time.monotonic()
    with condition.make(), (place / "command.log").open("w") as log:
        command = subprocess.Popen(
            argv, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            why, status = _watch(contender, condition, directory, command, begun)
            seconds = time.monotonic() - begun
        finally:
            _end(command, directory)
    results = _results(contender, condition, directory)
    ok = not why
    logs = [] if ok and not status else _logs(contender, directory, place)
    said = reasons.words("\n".join(logs))
    return Outcome(
        contender.name,
        condition.name,
        ok,
        said if said and why == NO_RESULT else f"{why} ({said})" if said and why else why,
        round(seconds, 1),
        f"{sum(results)}/{condition.wish.members}",
        status,
        _evidence(logs, place),
    )


def _watch(
    contender: Contender, condition: Condition, directory: Path, command: subprocess.Popen[bytes], begun: float
) -> tuple[str, int | None]:
    """(Why it failed, or nothing; the status of the command where it has ended)."""
    last_job = time.monotonic()
    while True:
        results = _results(contender, condition, directory)
        if results and not all(results):
            return "a wrong result", command.poll()
        if len(results) >= condition.wish.members:
            return _ended_well(directory), _status(command)
        found = jobs(directory)
        now = time.monotonic()
        if found or (command.poll() is None and now - begun < 60):
            last_job = now
        if now - last_job > GONE_SECONDS:
            return NO_RESULT, command.poll()
        if now - begun > condition.bound:
            states = sorted({state.removesuffix(" None").lower() for _, state in found})
            return f"hangs: {', '.join(states) or 'no job'} after {condition.bound} s", command.poll()
        time.sleep(POLL_SECONDS)


def _results(contender: Contender, condition: Condition, directory: Path) -> list[bool]:
    return scripts.results(directory) if condition.wish.script else contender.results(directory)


def _status(command: subprocess.Popen[bytes]) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return command.wait(45)
    return None


def _ended_well(directory: Path) -> str:
    """Nothing, if the jobs that have written the results end by themselves and without an error."""
    deadline = time.monotonic() + 60
    while jobs(directory):
        if time.monotonic() > deadline:
            return "right result, but its job does not end"
        time.sleep(POLL_SECONDS)
    bad = sorted({state.split()[0] for _, state in jobs(directory, "--states=all")} - {"COMPLETED", "CANCELLED"})
    return f"right result, but the job is {' '.join(bad)}" if bad else ""


def jobs(directory: Path, *options: str, around: bool = False) -> list[tuple[str, str]]:
    """Number and state of every job that was submitted from `directory` or below; `around`: and the allocation that was done in."""
    done = subprocess.run(["squeue", "-h", "-r", *options, "-o", "%A|%T %r|%j|%Z"], capture_output=True, text=True, check=False)
    rows = [line.split("|", 3) for line in done.stdout.splitlines()]
    mine = [row for row in rows if (around or row[2] != ALLOCATION) and f"{row[3]}/".startswith(f"{directory}/")]
    return [(number, state) for number, state, *_ in mine]


def _end(command: subprocess.Popen[bytes], directory: Path) -> None:
    """Nothing of this run is left for the next one to meet."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    deadline = time.monotonic() + 60
    while (found := jobs(directory, around=True)) and time.monotonic() < deadline:
        subprocess.run(["scancel", *sorted({number for number, _ in found})], capture_output=True, check=False)
        time.sleep(1)


_TELLS = re.compile(r"error|refused|cannot|failed|no such|timed? ?out|not found|in use|unexpected|unable", re.IGNORECASE)
_SAYS_NOTHING = re.compile(
    r"^\s*(File|raise|return|self\.|at |\^|\*|=)|accounting storage is disabled|ChildFailedError|error_file|traceback"
)


def _logs(contender: Contender, directory: Path, place: Path) -> list[str]:
    files = [path for pattern in contender.logs for path in sorted(directory.glob(pattern)) if path.is_file()]
    return [_text(path) for path in [*files[:40], place / "command.log"]]


def _evidence(logs: Iterable[str], place: Path) -> list[str]:
    """The lines that tell, once each, without what differs from run to run or names this machine."""
    return list(dict.fromkeys(line for log in logs for line in _told(log.splitlines(), place)))[:12]


def _told(lines: Iterable[str], place: Path) -> list[str]:
    told = [line.strip() for line in lines if _TELLS.search(line) and not _SAYS_NOTHING.search(line)]
    shorter = [re.sub(r"/\S*/(?=[^/\s]+)", "…/", line.replace(str(place), "…"))[:240] for line in told]
    return [re.sub(r"^(\[[^\]]*\]:?|\d{4}-\S+ \S+)\s*", "", line) for line in shorter][-6:]


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""
