"""`plot RUN…`: the curves of runs, or of a sweep's members, in one PNG: for who has no browser at hand."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import ConfigError, RunError
from launcher.rundir import lookup, sweep
from launcher.rundir.rundir import RunDir, read_jsonl, write_atomic
from launcher.trust import owner, reading

_TO = "to="
_NAME = "charts.png"
_FIRST = ("loss", "accuracy")
_PLACES = ("step", "epoch", "samples")
"""Where in a run a line is, which is no curve."""
_STYLES = {"train": "-", "val": "--"}
"""Of the split; others are dotted."""
_COLUMNS, _PANEL_INCHES, _DPI = 3, (4.6, 3.0), 110
_MOST_NAMED = 12
"""Curves that a panel has the names of."""

Curves = dict[tuple[str, str], dict[int, float]]
"""By metric and split: the value at each step."""


def plot(words: list[str]) -> int:
    """Write the PNG and print its path. Raises ConfigError, RunError."""
    words, everywhere = lookup.asked(words)
    names = [word for word in words if not word.startswith(_TO)]
    targets = [word.removeprefix(_TO) for word in words if word.startswith(_TO)]
    if not names or len(targets) > 1:
        raise ConfigError("plot takes runs, or a sweep, and where the picture is to be: plot RUN… [to=FILE.png]")
    runs = list({run.path: run for name in names for run in _runs(name, everywhere)}.values())
    path = _path(targets[0]) if targets else _path_of(runs)
    found = {run: curves for run in runs if (curves := _curves(run))}
    if not found:
        raise RunError(f"{runs[0].metrics} has no metrics yet; they come every train.log_every steps")
    write_atomic(path, _drawn(found))
    print(path)
    return 0


def _runs(name: str, everywhere: bool) -> list[RunDir]:
    found = sweep.find(name, everywhere=everywhere)
    return [lookup.find(name, everywhere=everywhere)] if found is None else [entry.run for entry in found.entries()]


def _path(asked: str) -> Path:
    path = Path(asked).expanduser().absolute()
    path = path / _NAME if path.is_dir() else path
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{_TO}{asked}: the picture is a PNG; type {_TO}{path.with_suffix('.png').name}")
    if not path.parent.is_dir():
        raise ConfigError(f"{_TO}{asked}: there is no directory {path.parent}; make it, or type another")
    return path


def _path_of(runs: Sequence[RunDir]) -> Path:
    """In the run, of several here."""
    if len(runs) > 1:
        return Path(_NAME).absolute()
    if why := owner.fault(runs[0].path):
        raise RunError(f"{runs[0].path}: {why}, and could lead a file elsewhere; type {_TO}{_NAME}")
    return runs[0].path / _NAME


def _curves(run: RunDir) -> Curves:
    """An attempt that goes on behind a step has what comes after it anew."""
    found: Curves = {}
    for line in read_jsonl(run.metrics):
        step, split = reading.whole_number(line.get("step")), str(line.get("split"))[:40]
        if step is None:
            continue
        for metric, value in line.items():
            if metric in _PLACES or (number := reading.number(value)) is None:
                continue
            curve = found.setdefault((metric[:80], split), {})
            if curve and step <= next(reversed(curve)):
                for later in [each for each in curve if each >= step]:
                    del curve[later]
            curve[step] = number
    return found


def _drawn(found: dict[RunDir, Curves]) -> bytes:
    """Raises ConfigError where there is nothing to draw with."""
    try:
        import matplotlib
        from matplotlib.figure import Figure  # without pyplot: no window, and no state
    except ImportError as error:
        raise ConfigError(f"plot needs matplotlib ({error}); pip install 'launcher[plot]'") from error
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home that cannot be written, a cache of fonts
    library: Any = matplotlib
    with warnings.catch_warnings(), library.rc_context():
        warnings.simplefilter("ignore")  # signs that the font has not
        library.rcdefaults()
        metrics = sorted({metric for curves in found.values() for metric, _ in curves}, key=_order)
        columns = min(_COLUMNS, len(metrics))
        rows = -(-len(metrics) // columns)
        figure: Any = Figure((columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]), dpi=_DPI, layout="constrained")
        for place, metric in enumerate(metrics, 1):
            _panel(figure.add_subplot(rows, columns, place), metric, found)
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    return picture.getvalue()


def _order(metric: str) -> tuple[int, str]:
    return (_FIRST.index(metric) if metric in _FIRST else len(_FIRST)), metric


def _panel(axes: Any, metric: str, found: dict[RunDir, Curves]) -> None:
    drawn: list[tuple[Any, str]] = []
    for number, split, name, curve in _named(metric, found):
        style = {"linestyle": _STYLES.get(split, ":"), "color": f"C{number % 10}", "marker": "." if len(curve) < 3 else ""}
        drawn.append((axes.plot([*curve], [*curve.values()], **style)[0], name))
    axes.set_title(metric, parse_math=False)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    for text in axes.legend(*zip(*drawn[:_MOST_NAMED], strict=True), fontsize="x-small").get_texts():
        text.set_parse_math(False)


def _named(metric: str, found: dict[RunDir, Curves]) -> Iterator[tuple[int, str, str, dict[int, float]]]:
    """The number of its colour, the split, and what a curve is called: of one run by the split, which has the colour then."""
    splits = sorted({split for curves in found.values() for _, split in curves})
    for number, (run, curves) in enumerate(found.items()):
        for (of, split), curve in curves.items():
            if of == metric and len(found) == 1:
                yield splits.index(split), split, split, curve
            elif of == metric:
                yield number, split, f" {run.label} {split}", curve  # a name may begin with _, which would hide it
