"""`plot RUN…`: the curves of runs, or of a sweep's members, in one PNG: for who has no browser at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.charts import canvas, curves
from launcher.errors import RunError
from launcher.rundir import lookup, sweep
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.trust import owner
from launcher.verbs.words import Words, text

_NAME = "charts.png"
_WORDS = Words("plot", "RUN…", {"to": text("FILE.png")}, takes="runs, or a sweep, and where the picture is to be")


def plot(words: list[str]) -> int:
    """Write the PNG and print its path. Raises ConfigError, RunError."""
    words, everywhere = lookup.asked(words)
    names, values, *_ = _WORDS.read(words)
    runs = sweep.runs(names, everywhere=everywhere)
    path = canvas.place(values["to"], _NAME) if values["to"] else _path_of(runs)
    found = {run: drawn for run in runs if (drawn := curves.of(run))}
    if not found:
        raise RunError(f"{runs[0].metrics} has no metrics yet; they come every train.log_every steps")
    write_atomic(path, curves.png(found, "plot"))
    print(path)
    return 0


def _path_of(runs: Sequence[RunDir]) -> Path:
    """In the run, of several here."""
    if len(runs) > 1:
        return Path(_NAME).absolute()
    if why := owner.fault(runs[0].path):
        raise RunError(f"{runs[0].path}: {why}, and could lead a file elsewhere; type {canvas.TO}{_NAME}")
    return runs[0].path / _NAME
