"""What is damaged in a run directory, in a few words: `status` shows the other runs and names this one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.errors import RunError
from launcher.rundir.rundir import LEDGER_BYTES, RunDir
from launcher.trust import reading
from launcher.verdict import evidence

_MOST = 3
_TAIL_BYTES = 4096
_CHARACTERS = 160
_COUNTS = ("attempt", "restart", "step", "steps", "replayed")
"""Of an event."""
_OWNERS = (".launcher", ".lock", "meeting.key")
"""Nobody else's to read, with any runs_mode."""


def of(run: RunDir) -> str:
    """Empty where nothing is. Raises nothing."""
    found = list(dict.fromkeys(_found(run)))
    return "; ".join(found[:_MOST]) + (f"; and {len(found) - _MOST} more" if len(found) > _MOST else "")


def _found(run: RunDir) -> Iterator[str]:
    try:
        run.read_plan()
    except RunError as error:
        text = str(error).removeprefix(f"{run.path}/")
        yield text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 2]} …"
    newest = run.newest_attempt()
    for place in (run.path, *([] if newest is None else [run.attempt(newest)])):
        yield from _of_files(place)
    for path in (run.attempts, run.checkpoints):
        if path.exists() and not path.is_dir():
            yield f"{path.name} is no directory"
    yield from _of_ledger(run)
    summary = run.read_summary()
    if run.summary.is_file() and (summary is None or not all(map(_is_number, _figures(summary)))):
        yield "summary.json is no summary of a run"
    if newest is not None and run.error(newest).is_file() and evidence.newest_report(run, newest) is None:
        yield "error.json is no report of a rank"
    metrics = reading.last_lines(run.metrics, _TAIL_BYTES)
    if run.metrics.is_file() and run.metrics.stat().st_size and not any(map(_is_metric, metrics)):
        yield "metrics.jsonl does not end with metrics"


def _of_files(place: Path) -> Iterator[str]:
    """What should be one and is none."""
    try:
        entries = sorted(path for path in place.iterdir() if "." in path.name or path.name in ("ended", "outcome") or not path.exists())
    except OSError as error:
        yield f"{place.name} cannot be read ({error.strerror})"
        return
    for path in entries:
        try:
            with reading.opened(path):
                pass
        except FileNotFoundError:  # it has gone since
            pass
        except OSError as error:
            theirs = isinstance(error, PermissionError) and path.name in _OWNERS
            if path.name != "latest" and not theirs:
                yield f"{path.name} cannot be read ({error.strerror})"


def _of_ledger(run: RunDir) -> Iterator[str]:
    """A line that is torn at its end is one to come."""
    try:
        lines = reading.whole(run.events, LEDGER_BYTES).split(b"\n")
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            yield f"events.jsonl cannot be read ({error.strerror})"
        return
    wrong = [number for number, line in enumerate(lines[:-1], 1) if not _is_event(line)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield f"events.jsonl: line {wrong[0]}{more}: no event, passed over"


def _is_event(line: bytes) -> bool:
    """With values that are what the launcher writes there."""
    try:
        event = reading.record(line)
    except ValueError:
        return False
    return (
        isinstance(event.get("event"), str)
        and all(event.get(name) is None or reading.whole_number(event[name]) is not None for name in _COUNTS)
        and _is_number(event.get("time"))
        and re.fullmatch(r"[0-9_+]*", str(event.get("job", ""))) is not None
    )


def _figures(summary: dict[str, Any]) -> Iterator[Any]:
    return (value for name, value in summary.items() if name.startswith(("test_", "val_")))


def _is_metric(line: str) -> bool:
    try:
        record = reading.record(line)
    except ValueError:
        return False
    return reading.whole_number(record.get("step")) is not None and _is_number(record.get("loss"))


def _is_number(value: object) -> bool:
    """Or nothing: what is not finite is written so."""
    return value is None or isinstance(value, float) or reading.number(value) is not None
