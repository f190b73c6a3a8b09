"""`status [RUN]`: a table of runs, or one of them."""

from __future__ import annotations

import json
import time
from typing import Any

from launcher import lock
from launcher.errors import ConfigError
from launcher.rundir import RunDir, all_runs, find

COLUMNS = ("run", "state", "step", "attempts", "test accuracy", "last loss", "updated")
_TAIL_BYTES = 65_536


def status(words: list[str]) -> int:
    """Print the newest 20 runs, or the one asked for. Needs neither Hydra nor torch."""
    if len(words) > 1:
        raise ConfigError("status takes no run, for all of them, or one: a path, an id or a name")
    runs = [find(words[0])] if words else all_runs()[-20:]
    if not runs:
        print("no runs yet; start one with: python -m launcher +exp=cifar")
        return 0
    rows = [COLUMNS, *(_row(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if words:
        _print_details(runs[0])
    return 0


def state(run: RunDir) -> str:
    """done, stopped, failed, running, or dead (no process, no word: killed; it can be resumed)."""
    if lock.is_held(run.lock):
        return "running"
    summary = run.read_summary()
    newest = run.newest_attempt()
    if summary is not None and summary.get("attempt") == newest:
        return str(summary["state"])
    if newest is None:
        return "submitted"
    return "failed" if list(run.attempt(newest).glob("error*.json")) else "dead"


def _row(run: RunDir) -> tuple[str, ...]:
    events = run.read_events()
    started = [event for event in events if event["event"] == "started"]
    last = _last_metrics(run)
    total = started[-1]["steps"] if started else "?"
    summary = run.read_summary() or {}
    accuracy = summary.get("test_accuracy")
    return (
        run.label,
        state(run),
        f"{last.get('step', 0)}/{total}",
        str(len(started)),
        "" if accuracy is None else f"{accuracy:.2%}",
        f"{last['loss']:.4g}" if "loss" in last else "",
        _ago(run),
    )


def _last_metrics(run: RunDir) -> dict[str, Any]:
    """The last line of metrics.jsonl that is about training, from the end of the file alone."""
    try:
        with run.metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("split") == "train":
            return record
    return {}


def _ago(run: RunDir) -> str:
    changed = max((path.stat().st_mtime for path in (run.metrics, run.events, run.plan) if path.exists()), default=0.0)
    seconds = max(0, time.time() - changed)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _print_details(run: RunDir) -> None:
    print(f"\ndirectory  {run}")
    for event in run.read_events()[-8:]:
        fields = ", ".join(f"{name}={value}" for name, value in event.items() if name not in ("time", "event"))
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(event['time']))}  {event['event']}  {fields}")
