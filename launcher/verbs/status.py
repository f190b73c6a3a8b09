"""`status [RUN]`: a table of runs, or one of them, or a sweep."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from typing import Any

from launcher.clusters import queues
from launcher.errors import ConfigError, readable
from launcher.rundir import lookup, progress, sweep
from launcher.rundir.lookup import Known
from launcher.rundir.rundir import RunDir
from launcher.rundir.sweep import Sweep
from launcher.trust import reading, terminal
from launcher.verdict import evidence, flaws, standing
from launcher.verdict.jobs import waiting
from launcher.verdict.standing import Queue, Standing

COLUMNS = ("run", "state", "step", "progress", "eta", "attempts", "nodes", "last loss", "test accuracy", "updated")
_TAIL_BYTES = 65_536


MOST = 25
"""Rows of the table, where nobody asks for all."""


def status(words: list[str]) -> int:
    """Print the newest runs of the project at hand, all there are, or the one asked for. Needs neither Hydra nor torch, and asks the
    scheduler once at most.
    """
    words, everywhere = lookup.asked(words)
    if len(words) > 1:
        raise ConfigError("status takes no run, for all of them, or one run or sweep: a path, an id or a name")
    found = sweep.find(words[0], everywhere=everywhere) if words else None
    if found is not None:
        _print_sweep(found)
        return 0
    if words:
        run = lookup.find(words[0], everywhere=everywhere)
        _print_details(run, standing.standing(run, print_table([run])))
        return 0
    known = lookup.known()
    runs = known.all() if everywhere else known.here[-MOST:]
    if runs:
        print_table(runs, with_place=everywhere)
    elif everywhere or not known.elsewhere:
        print("no runs yet; start one with: python -m launcher +exp=cifar")
    if not everywhere:
        _print_left_out(known, len(runs))
    if unread := lookup.closed():
        print(unread)
    for found in lookup.damaged():
        print(readable(f"launcher: warning: {found}"), file=sys.stderr)
    return 0


def _print_left_out(known: Known, shown: int) -> None:
    older, elsewhere = len(known.here) - shown, len(known.elsewhere)
    said = [f"{older} older runs of this project are left out"] if older else []
    said += ["no runs in this project"] if elsewhere and not known.here else []
    said += [f"{elsewhere} run{'s' * (elsewhere > 1)} elsewhere"] if elsewhere else []
    if said:
        print(f"{'; '.join(said)}; all of them: python -m launcher status --all")


def print_table(runs: list[RunDir], *, with_place: bool = False) -> Queue:
    """One row a run. Returns what the scheduler said."""
    queue = _ask(runs)
    places = [("directory",), *((str(run),) for run in runs)] if with_place else [()] * (len(runs) + 1)
    rows = [COLUMNS, *(_row(run, standing.standing(run, queue)) for run in runs)]
    _print_rows([row + place for row, place in zip(rows, places, strict=True)])
    _warn_of(*runs)
    return queue


def _warn_of(*runs: RunDir) -> None:
    """A line for each that has a damaged file."""
    for run in runs:
        if found := flaws.of(run):
            print(readable(f"launcher: warning: {run}: {found}"), file=sys.stderr)


def _ask(runs: list[RunDir]) -> Queue:
    queue = queues.ask(runs)
    if queue.excuse:
        print(f"launcher: warning: the scheduler does not say: {queue.excuse}", file=sys.stderr)
    return queue


def _print_rows(rows: list[tuple[str, ...]]) -> None:
    rows = [tuple(map(terminal.one_line, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_sweep(found: Sweep) -> None:
    """One row a member, and how many there are of each state."""
    entries = found.entries()
    queue = _ask([entry.run for entry in entries])
    rows: list[tuple[str, ...]] = []
    counts: Counter[str] = Counter()
    for entry in entries:
        row = _row(entry.run, standing.standing(entry.run, queue))
        counts[row[1]] += 1
        rows.append((str(entry.number), " ".join(entry.overrides), *row[1:]))
    _print_rows([("member", "overrides", *COLUMNS[1:]), *rows])
    _warn_of(*(entry.run for entry in entries))
    print(f"\n{len(rows)} members: {', '.join(f'{count} {word}' for word, count in counts.most_common())}")
    print(f"directory  {found.path}")


def _row(run: RunDir, now: Standing) -> tuple[str, ...]:
    started = [event for event in run.read_events() if event["event"] == "started"]
    last = _last_metrics(run)
    summary, shown = run.read_summary() or {}, _shown(run) if started else None
    step = reading.whole_number(last.get("step")) or 0
    total = reading.whole_number(started[-1].get("steps")) or 0 if started else 0
    if shown is not None and not total:  # a script's: all that is known is what it has said
        step, total = max(step, shown.step), shown.steps
    loss = reading.number(last.get("loss", summary.get("loss")))
    accuracy = reading.number(summary.get("test_accuracy"))
    return (
        run.label,
        now.word,
        f"{step}/{total or '?'}",
        f"{step / total:.0%}" if total else "",
        shown.text.rpartition("eta ")[2] if shown is not None and now.word == "running" else "",
        str(len(started)),
        now.job.nodes if now.job is not None and now.alive else "",
        "" if loss is None else f"{loss:.4g}",
        "" if accuracy is None else f"{accuracy:.2%}",
        _ago(run),
    )


def _shown(run: RunDir) -> progress.Progress | None:
    """The last line of progress in rank 0's log."""
    newest = run.newest_attempt()
    lines = [] if newest is None else reading.last_lines(run.rank_log(newest, 0), _TAIL_BYTES)
    return next((shown for line in reversed(lines) if (shown := progress.parse(line)) is not None), None)


def _last_metrics(run: RunDir) -> dict[str, Any]:
    """The last line of metrics.jsonl that is about training."""
    for line in reversed(reading.last_lines(run.metrics, _TAIL_BYTES)):
        with contextlib.suppress(ValueError):
            if (record := reading.record(line)).get("split") == "train":
                return record
    return {}


def _ago(run: RunDir) -> str:
    seconds = max(0, time.time() - max(evidence.changed(path) for path in (run.metrics, run.events, run.plan)))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _print_details(run: RunDir, now: Standing) -> None:
    print(f"\ndirectory  {run}")
    if now.job is not None:
        where = f" on {now.job.cluster}" if now.job.cluster else ""
        print(f"job        {now.job.id}{where}: {waiting(now.job) if now.waits else now.job.state.lower()}")
    if now.word == "done" and (after := standing.after(run)):
        print(f"next       {after}")
    for event in run.read_events()[-8:]:
        fields = ", ".join(f"{name}={value}" for name, value in event.items() if name not in ("time", "event"))
        print(terminal.one_line(f"{_clock(event.get('time'))}  {event['event']}  {fields}"))


def _clock(when: Any) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (TypeError, ValueError, OverflowError, OSError):
        return "?"
