"""Every path inside a run directory, and how things are written there.

runs/<name>/<id>/         fixed at submit; survives every attempt; 0700, files 0600; of runs_mode=group 2750, files 0640
  config.yaml plan.json job.sh   frozen inputs
  events.jsonl            the ledger: submitted, started, stopped, done
  code/ prelude/          of a batch job: what was submitted is what runs; job.log: what its shell said
  attempts/000/           rank_0.log …, agent_0.log … (torchrun, one a node), error.json; attempts/latest -> newest
                          outcome, ended: rank 0's word and the shell's or launcher's of how it ended, which nothing later changes
                          job, checkpoint, lasted, trained: whose it was and what it brought (launcher/verdict/headway.py)
  checkpoints/            step_000000400/ …: complete or absent
  metrics.jsonl  tb/      the truth, and the view made from it
  summary.json            how it ended
  STOP                    a request to save and stop
  .launcher .lock .claim  who stays with it, who trains it (launcher/rundir/lock.py), who may write (launcher/rundir/claim.py)
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from launcher.errors import RunError
from launcher.plan import Plan
from launcher.trust import owner, reading, writing
from launcher.trust.secret import mask

_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}")
"""For how a run or an attempt ended."""
LEDGER_BYTES = 1 << 20
"""Ten thousand events: a run that was begun more often than that is none."""


class RunDir:
    """Names for the places in one run directory. Creating one touches nothing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.plan = self.path / "plan.json"
        self.script = self.path / "job.sh"
        self.events = self.path / "events.jsonl"
        self.attempts = self.path / "attempts"
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tb"
        self.summary = self.path / "summary.json"
        self.stop = self.path / "STOP"
        self.lock = self.path / ".lock"
        self.launcher = self.path / ".launcher"
        self.claim = self.path / ".claim"
        self.code = self.path / "code"
        self.prelude = self.path / "prelude"
        self.log = self.path / "job.log"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def label(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    def read_plan(self) -> Plan:
        return Plan.from_json(read_text(self.plan), self.plan)

    def attempt(self, number: int) -> Path:
        return self.attempts / f"{number:03d}"

    def newest_attempt(self) -> int | None:
        """Number of the newest attempt, None before the first."""
        try:
            return max(self._attempts(), default=None)
        except OSError:
            return None

    def _attempts(self) -> list[int]:
        """Raises OSError."""
        return [int(entry.name) for entry in self.attempts.iterdir() if re.fullmatch(r"[0-9]{3}|[1-9][0-9]{3,8}", entry.name)]

    def attempt_of(self, agent: int, after: int | None = None) -> int | None:
        """Number of the newest attempt that the process `agent` started: another may have started one beside ours.

        `after`: the newest attempt before it started. In a container an earlier one may have had the same number as a process.
        """
        try:
            later = [number for number in self._attempts() if after is None or number > after]
        except OSError:
            return None
        for number in sorted(later, reverse=True):
            with contextlib.suppress(OSError):
                if reading.first_line(self.attempt(number) / "agent.pid") == str(agent):
                    return number
        return None

    def newest_checkpoint(self) -> str:
        """Name of its directory; empty where there is none. Nobody has looked at what is in it."""
        steps = [path.name for path in self.checkpoints.glob("step_*") if path.name[5:].isdecimal()]
        return max(steps, key=lambda name: int(name[5:]), default="")  # by number: names have more digits from a thousand million on

    def rank_log(self, attempt: int, rank: int) -> Path:
        return self.attempt(attempt) / f"rank_{rank}.log"

    def agent_log(self, attempt: int, node: int = 0) -> Path:
        return self.attempt(attempt) / f"agent_{node}.log"

    def error(self, attempt: int) -> Path:
        return self.attempt(attempt) / "error.json"

    def outcome(self, attempt: int) -> Path:
        """One line that rank 0 leaves for the batch shell: done, failed, or stopped and why."""
        return self.attempt(attempt) / "outcome"

    def log_event(self, event: str, **fields: Any) -> None:
        """One line of the ledger. A single O_APPEND write, so that writers never interleave within a line."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **cast("dict[str, Any]", mask.everywhere(fields))}) + "\n"
        descriptor = writing.to_append(self.events)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def read_events(self) -> list[dict[str, Any]]:
        """What the ledger holds that is an event; other lines a full disk or an editor has left. What else is in one may be anything."""
        try:
            found = reading.whole(self.events, LEDGER_BYTES)
        except OSError:
            return []
        return [line for line in reading.records(found.splitlines()) if isinstance(line.get("event"), str)]

    def how_it_ended(self, attempt: int) -> str:
        """The first word that was left of it: requeued-…, stopped, interrupted, failed, done, …; empty where it was killed first."""
        for path in (self.attempt(attempt) / "ended", self.outcome(attempt)):
            with contextlib.suppress(OSError):
                if words := _WORD.match(reading.first_line(path)):
                    return words[0]
        return ""

    def read_summary(self) -> dict[str, Any] | None:
        """None where there is none yet, or it is damaged. `state` is a word; what else is in it may be anything."""
        try:
            summary = reading.record(reading.whole(self.summary, LEDGER_BYTES))
        except (OSError, ValueError):
            return None
        state = summary.get("state")
        return summary if isinstance(state, str) and _WORD.fullmatch(state) else None

    def freeze(self, plan: Plan, config: str, script: str, *, sync: bool = True) -> None:
        """Write the frozen inputs into a new directory; the plan last, for it says that the rest is there.

        `sync=False` leaves it to the kernel when they reach the disk: hundreds of members of a sweep would wait for each other.
        """
        self.attempts.mkdir()
        write_atomic(self.config, config, sync=sync)
        write_atomic(self.script, script, sync=sync)
        write_atomic(self.plan, plan.to_json(), sync=sync)

    def forget_attempt(self, attempt: int) -> None:
        """Of a start that was refused before anything began: it leaves no trace."""
        import shutil  # here: it loads three compressors

        shutil.rmtree(self.attempt(attempt), ignore_errors=True)
        newest, latest = self.newest_attempt(), self.attempts / "latest"
        with contextlib.suppress(OSError):
            latest.unlink(missing_ok=True)
            if newest is not None:
                latest.symlink_to(f"{newest:03d}")

    def set_checkpoints_aside(self) -> None:
        """Rename what a fresh start must not see; nothing is deleted."""
        for path in (self.checkpoints, self.metrics, self.tensorboard, self.summary):
            if path.exists():
                spare = next(name for n in range(10_000) if not (name := path.with_name(f"{path.name}.old-{n}")).exists())
                path.rename(spare)


def create(path: Path, umask: str = "077") -> RunDir:
    """Make a run directory that was not there. Raises FileExistsError, or RunError where it cannot be made."""
    try:
        _make_way(path.parent, umask)
        _refuse_a_place_of_others(path.parent)
        _make(path, umask)
    except FileExistsError:
        if path.is_dir():
            raise
        raise RunError(f"runs_dir={path.parent.parent}: {path} is a file, not a directory; choose another runs_dir=…") from None
    except OSError as error:
        raise RunError(f"runs_dir={path.parent.parent} cannot be written ({error.strerror}); choose another with runs_dir=…") from None
    return RunDir(path)


def _make_way(path: Path, umask: str) -> None:
    """With parents."""
    for place in [place for place in (*reversed(path.parents), path) if not place.is_dir()]:
        with contextlib.suppress(FileExistsError):
            _make(place, umask)


def _make(path: Path, umask: str) -> None:
    """Private, whatever the umask of this process; or for its group to read, and all that will be in it."""
    path.mkdir(mode=0o700)
    if umask != "077":
        path.chmod(0o2750)


def umask_of(run: RunDir) -> int:
    """The umask for whatever writes there: as the run was made, so for ever."""
    try:
        return 0o027 if run.path.stat().st_mode & stat.S_IRGRP else 0o077
    except OSError:
        return 0o077


def _refuse_a_place_of_others(path: Path) -> None:
    """Who may write there could put another run in the place of this one while it trains. Raises RunError."""
    if not (found := owner.fault(path)):
        return
    with contextlib.suppress(OSError):
        path.rmdir()  # where it was made just now
    name = "another name=… or " if found.startswith(f"{path} belongs to ") else ""
    sticky = f"type: chmod +t {path.parent}, where it is yours; " if found.endswith(f" may write {path.parent}") else ""
    raise RunError(
        f"runs_dir={path.parent}: {found}, and could put another run in the place of this one; {sticky}choose {name}another runs_dir=…, or "
        f"type {owner.WAY_OUT}={path.parent} before the command if you know all who write there"
    )


def write_atomic(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Write a whole file or nothing: temporary, fsync where there is one, rename. Raises RunError."""
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with os.fdopen(writing.new(spare), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            if sync:
                writing.sync(file.fileno())
        spare.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            spare.unlink()
        raise RunError(f"{path} cannot be written ({error.strerror}); make room or choose another runs_dir=…") from error


def read_text(path: Path) -> str:
    """Raises RunError."""
    try:
        return reading.text(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); this is no complete run directory") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} cannot be read ({error}); this is no complete run directory") from error


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines that are an object; a torn last line is not one yet."""
    with contextlib.suppress(OSError):
        yield from reading.records(reading.lines(path))
