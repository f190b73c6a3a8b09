"""`plot RUN…`: the curves of runs, or of a sweep's members, in one PNG: for who has no browser at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.charts import canvas, curves
from launcher.errors import RunError
from launcher.rundir import lookup, sweep
from launcher.rundir.rundir import RunDir
from launcher.trust import owner
from launcher.verbs.words import Words, text

_NAME, _SEVERAL = "charts.png", "charts-of-{}-runs.png"
_WORDS = Words("plot", "RUN…", {"to": text("DIR|FILE.png")}, takes="runs, or a sweep, and where the picture is to be")


def plot(words: list[str]) -> int:
    """Write the PNG and print its path. Raises ConfigError, RunError."""
    words, everywhere = lookup.asked(words)
    names, values, *_ = _WORDS.read(words)
    runs = sweep.runs(names, everywhere=everywhere)
    path = canvas.place(values["to"], _NAME) if values["to"] else _path_of(runs)
    found = {run: drawn for run in runs if (drawn := curves.of(run))}
    if not found:
        raise RunError(f"{runs[0].metrics} has no metrics yet; they come every train.log_every steps")
    canvas.put(path, curves.png(found, "plot"))
    print(path)
    return 0


def _path_of(runs: Sequence[RunDir]) -> Path:
    """In the run, of several in the first one."""
    first = runs[0].path
    if why := owner.fault(first):
        raise RunError(f"{first}: {why}, and could lead a file elsewhere; type {canvas.TO}{_NAME}")
    return first / (_NAME if len(runs) == 1 else _SEVERAL.format(len(runs)))
