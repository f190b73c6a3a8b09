"""`collect SWEEP`: the final metrics of its members by override, best first, on the screen and as CSV and JSON."""

from __future__ import annotations

import json

from launcher import lookup, sweep
from launcher.errors import ConfigError
from launcher.rundir import write_atomic


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
    rows = sweep.results(found)
    shown = sweep.table([{name: value for name, value in row.items() if name != "run"} for row in rows])
    write_atomic(found.path / "collected.csv", sweep.table(rows))
    write_atomic(found.path / "collected.json", json.dumps(rows, indent=1) + "\n")
    _print_aligned(shown)
    print(f"\nby {found.objective}; written to {found.path}/collected.csv and collected.json")
    return 0


def _print_aligned(text: str) -> None:
    import csv

    rows = list(csv.reader(text.splitlines()))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
