"""The curves of runs, from their lines of metrics, and a picture of them: a panel a metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from launcher.charts import canvas
from launcher.rundir.rundir import RunDir, read_jsonl
from launcher.trust import reading

_FIRST = ("loss", "accuracy")
_PLACES = ("step", "epoch", "samples")
"""Where in a run a line is, which is no curve."""
_STYLES = {"train": "-", "val": "--"}
"""Of the split; others are dotted."""
_COLUMNS, _PANEL_INCHES, _LEGEND_INCHES = 3, (4.6, 3.0), 0.25
_MOST_NAMED = 12
"""Runs that the legend has the names of."""
_FEW = 12
"""Points of a curve, up to which each has a dot: one alone has no line."""
_TITLES: Mapping[str, tuple[str, float]] = {
    "lr": ("learning rate", 1),
    "grad_norm": ("norm of the gradient", 1),
    "samples_per_second": ("samples a second", 1),
    "tokens_per_second": ("tokens a second", 1),
    "step_seconds": ("milliseconds of a step", 1e3),
    "data_seconds": ("milliseconds of a step that it waits for data", 1e3),
    "data_share": ("share of the time that it waits for data, %", 100),
    "memory_bytes": ("memory, GiB", 2**-30),
    "mfu": ("share of the peak of the device (MFU), %", 100),
    "mae": ("mean absolute error", 1),
    "rmse": ("root mean squared error", 1),
    "r2": ("R²", 1),
    "map": ("average precision at overlaps from 0.5 to 0.95", 1),
    "map50": ("average precision at an overlap of 0.5", 1),
}
"""In words, with the unit, and what a value is multiplied by for that. Others by their names, `_` as a space."""

Curves = dict[tuple[str, str], dict[int, float]]
"""By metric and split: the value at each step."""


def of(run: RunDir) -> Curves:
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


def png(found: Mapping[RunDir, Curves], verb: str) -> bytes:
    """Of runs of which at least one has curves. Raises ConfigError where there is nothing to draw with."""
    metrics = sorted({metric for curves in found.values() for metric, _ in curves}, key=_order)
    columns = min(_COLUMNS, len(metrics))
    rows = -(-len(metrics) // columns)
    many = len(found) > 1

    def fill(figure: Any) -> None:
        for place, metric in enumerate(metrics, 1):
            _panel(figure.add_subplot(rows, columns, place), metric, found)
        if many:
            _legend(figure, found, columns)
        else:
            figure.suptitle(next(iter(found)).label, parse_math=False)

    extra = _LEGEND_INCHES * (2 + -(-min(len(found), _MOST_NAMED) // columns)) if many else 0.3
    return canvas.png((columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1] + extra), fill, verb)


def _order(metric: str) -> tuple[int, str]:
    return (_FIRST.index(metric) if metric in _FIRST else len(_FIRST)), metric


def _panel(axes: Any, metric: str, found: Mapping[RunDir, Curves]) -> None:
    title, factor = _TITLES.get(metric, (metric.replace("_", " ").strip() or metric, 1))
    for number, split, curve in _drawn(metric, found):
        marker = "o" if len(curve) <= _FEW else ""
        style = {"linestyle": _STYLES.get(split, ":"), "color": f"C{number % 10}", "marker": marker, "markersize": 4}
        axes.plot([*curve], [factor * value for value in curve.values()], label=f" {split}", **style)  # with _ before it none is named
    axes.set_title(title, parse_math=False, fontsize="medium")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.ticklabel_format(axis="y", useOffset=False)
    if len(found) == 1:
        _named(axes.legend(fontsize="x-small"))


def _drawn(metric: str, found: Mapping[RunDir, Curves]) -> Iterator[tuple[int, str, dict[int, float]]]:
    """The number of its colour, the split, and the curve: of several runs each has a colour, of one each split."""
    splits = _splits(found)
    for number, curves in enumerate(found.values()):
        for (name, split), curve in curves.items():
            if name == metric:
                yield splits.index(split) if len(found) == 1 else number, split, curve


def _splits(found: Mapping[RunDir, Curves]) -> list[str]:
    """In the order of the styles."""
    names = {split for curves in found.values() for _, split in curves}
    return sorted(names, key=lambda split: ([*_STYLES, split].index(split), split))


def _legend(figure: Any, found: Mapping[RunDir, Curves], columns: int) -> None:
    """A colour a run, a kind of line a split, once for all panels."""
    from matplotlib.lines import Line2D

    splits = _splits(found)
    runs = [Line2D([], [], color=f"C{number % 10}", linewidth=4) for number in range(min(len(found), _MOST_NAMED))]
    styles: Any = [_STYLES.get(split, ":") for split in splits]  # texts, which matplotlib's types have one by one
    kinds = [Line2D([], [], color="black", linestyle=style) for style in styles]
    names = [f" {run.label}" for run in found][:_MOST_NAMED] + [f" {split}" for split in splits]
    _named(figure.legend([*runs, *kinds], names, loc="outside upper center", ncols=columns, fontsize="small"))


def _named(legend: Any) -> None:
    for text in legend.get_texts():
        text.set_parse_math(False)
