"""The parts of a page as PNGs, for a paper or a slide: charts by matplotlib, where it is there; pictures without."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

from launcher.charts import canvas
from launcher.errors import ConfigError
from launcher.evaluation import pictures
from launcher.evaluation.findings import Chart, Findings, Gallery, Heat

_INCHES = (5.2, 3.8)
MISSING = "no PNGs of the charts: matplotlib is not there (pip install 'launcher[plot]'); the page has them all"


def pngs(findings: Findings, say: Callable[[str], None]) -> dict[str, bytes]:
    """By file name. What is missing is said, once."""
    galleries = {_name(part.title): [each.png for each in part.pictures] for part in findings.parts if isinstance(part, Gallery)}
    made = {f"{name}.png": data for name, data in pictures.sheet(galleries).items()}
    for part in findings.parts:
        if isinstance(part, Chart | Heat):
            width, height = _INCHES
            if isinstance(part, Chart) and part.names:
                height = 1.0 + 0.22 * len(part.names)
            try:
                made[f"{part.key}.png"] = canvas.png((width, height), functools.partial(_drawn, part), "evaluate")
            except ConfigError:
                say(MISSING)
                break
    return made


def _drawn(part: Chart | Heat, figure: Any) -> None:
    axes = figure.add_subplot()
    _chart(axes, part) if isinstance(part, Chart) else _heat(figure, axes, part)
    axes.set_title(part.title, parse_math=False)
    x, y = (part.y, part.x) if isinstance(part, Chart) and part.names else (part.x, part.y)
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)


def _name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", title.partition(":")[0].lower()).strip("_")


def _chart(axes: Any, part: Chart) -> None:
    if part.names:
        _bars(axes, part)
        return
    for series in part.series:
        if series.kind == "bars":
            steps = sorted(series.x)
            width = min((after - before for before, after in itertools.pairwise(steps)), default=1.0) * 0.9
            axes.bar(series.x, series.y, width=width)
        elif series.kind == "points":
            axes.plot(series.x, series.y, linestyle="", marker=".", markersize=3, alpha=0.6)
        else:
            axes.plot(series.x, series.y, marker="o" if len(series.x) <= 40 else "", label=f" {series.name}")
    if part.diagonal:
        axes.axline((0, 0), slope=1, linestyle="--", color="gray", linewidth=1)
    axes.grid(alpha=0.3)
    if len(part.series) > 1:
        for text in axes.legend(fontsize="small").get_texts():
            text.set_parse_math(False)


def _bars(axes: Any, part: Chart) -> None:
    """As on the page: they lie, with the first one above."""
    places = range(len(part.names))
    axes.barh(places, part.series[0].y)
    axes.invert_yaxis()
    for label in axes.set_yticks(places, [name[:20] for name in part.names], fontsize=8):
        label.label1.set_parse_math(False)
    axes.grid(axis="x", alpha=0.3)


def _heat(figure: Any, axes: Any, part: Heat) -> None:
    shares = [[value / (sum(row) or 1) for value in row] for row in part.counts]
    figure.colorbar(axes.imshow(shares, vmin=0, vmax=1, cmap="Blues"))
    names = [name[:14] for name in part.names]
    for which, rotation in (("x", 60), ("y", 0)):
        for label in getattr(axes, f"set_{which}ticks")(range(len(names)), names, rotation=rotation, fontsize=7):
            label.label1.set_parse_math(False) if hasattr(label, "label1") else None
