"""`collect SWEEP`: the final metrics of its members by override, best first, on the screen and as CSV and JSON."""

from __future__ import annotations

import json
from typing import Any

from launcher.errors import ConfigError
from launcher.rundir import lookup, sweep
from launcher.rundir.objective import Objective, is_number
from launcher.rundir.rundir import write_atomic
from launcher.rundir.sweep import Sweep
from launcher.trust import owner


def collect(words: list[str]) -> int:
    """Print the table, write `collected.csv` and `collected.json` beside the sweep's ledger. Raises ConfigError, RunError."""
    words, everywhere = lookup.asked(words)
    if len(words) != 1:
        raise ConfigError("collect takes one sweep: its path or its id; `-m` printed both")
    found = sweep.find(words[0], everywhere=everywhere)
    if found is None:
        others = " ".join(map(str, lookup.sweeps(words[0], everywhere=True)))
        where = f"in this project; elsewhere: {others}" if others else "here"
        raise ConfigError(f"{words[0]}: no such sweep {where}; give the path or the id that `-m` printed, --all for other projects'")
    rows, by = sweep.results(found)
    shown = sweep.table([{name: value for name, value in row.items() if name != "run"} for row in rows])
    _print_aligned(shown)
    print(f"\nby {by}{_why(found.objective, by, rows)}; {_write(found, rows)}")
    return 0


def _write(found: Sweep, rows: list[dict[str, Any]]) -> str:
    """What became of it: where others may write they can lead a file elsewhere."""
    if why := owner.fault(found.path):
        return f"not written: {why}"
    write_atomic(found.path / "collected.csv", sweep.table(rows))
    write_atomic(found.path / "collected.json", json.dumps(rows, indent=1) + "\n")
    return f"written to {found.path}/collected.csv and collected.json"


def _why(asked: Objective, by: Objective, rows: list[dict[str, Any]]) -> str:
    """In brackets, where it is not what was asked for."""
    if by != asked:
        return f" (no summary has {asked.metric})"
    if any(is_number(row.get(asked.metric)) for row in rows):
        return ""
    there = sorted({name for row in rows for name in row if name.startswith(("test_", "val_"))})
    instead = f"; what there is: {', '.join(there)}; in the next sweep type objective=…" if there else ""
    return f" (no summary has it{instead})"


def _print_aligned(text: str) -> None:
    import csv

    rows = list(csv.reader(text.splitlines()))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
