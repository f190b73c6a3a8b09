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
_COLUMNS, _PANEL_INCHES = 3, (4.6, 3.0)
_MOST_NAMED = 12
"""Curves that a panel has the names of."""

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

    def fill(figure: Any) -> None:
        for place, metric in enumerate(metrics, 1):
            _panel(figure.add_subplot(rows, columns, place), metric, found)

    return canvas.png((columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]), fill, verb)


def _order(metric: str) -> tuple[int, str]:
    return (_FIRST.index(metric) if metric in _FIRST else len(_FIRST)), metric


def _panel(axes: Any, metric: str, found: Mapping[RunDir, Curves]) -> None:
    drawn: list[tuple[Any, str]] = []
    for number, split, name, curve in _named(metric, found):
        style = {"linestyle": _STYLES.get(split, ":"), "color": f"C{number % 10}", "marker": "." if len(curve) < 3 else ""}
        drawn.append((axes.plot([*curve], [*curve.values()], **style)[0], name))
    axes.set_title(metric, parse_math=False)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    for text in axes.legend(*zip(*drawn[:_MOST_NAMED], strict=True), fontsize="x-small").get_texts():
        text.set_parse_math(False)


def _named(metric: str, found: Mapping[RunDir, Curves]) -> Iterator[tuple[int, str, str, dict[int, float]]]:
    """The number of its colour, the split, and what a curve is called: of one run by the split, which has the colour then."""
    splits = sorted({split for curves in found.values() for _, split in curves})
    for number, (run, curves) in enumerate(found.items()):
        for (name, split), curve in curves.items():
            if name == metric and len(found) == 1:
                yield splits.index(split), split, split, curve
            elif name == metric:
                yield number, split, f" {run.label} {split}", curve  # a name may begin with _, which would hide it
