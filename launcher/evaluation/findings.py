"""What an evaluation comes to: metrics with their intervals, and the parts of its page. Others draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Metric(NamedTuple):
    value: float
    low: float | None = None
    high: float | None = None
    """Of the interval; None where there is none."""


class Series(NamedTuple):
    name: str
    x: Sequence[float]
    y: Sequence[float]
    kind: str = "line"
    """line | points | bars"""


@dataclass
class Chart:
    key: str
    """Of its file."""
    title: str
    x: str
    y: str
    series: Sequence[Series]
    diagonal: bool = False
    """With the line on which both are the same."""
    note: str = ""
    names: Sequence[str] = ()
    """Of what the bars of the one series are; without, `x` are numbers."""


@dataclass
class Heat:
    """Shares of rows, as a confusion matrix has them."""

    key: str
    title: str
    x: str
    y: str
    names: Sequence[str]
    counts: Sequence[Sequence[float]]
    note: str = ""


@dataclass
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    is_broad: bool = True


class Picture(NamedTuple):
    png: bytes
    text: str


@dataclass
class Gallery:
    title: str
    pictures: Sequence[Picture]
    note: str = ""
    is_broad: bool = False
    keys: Sequence[tuple[str, str]] = ()
    """Names, and the colours that stand for them, as CSS has them."""


@dataclass
class Texts:
    title: str
    texts: Sequence[tuple[str, str]]
    """What each is, and it."""
    note: str = ""


Part = Chart | Heat | Table | Gallery | Texts


@dataclass
class Findings:
    metrics: dict[str, Metric] = field(default_factory=dict[str, Metric])
    parts: list[Part] = field(default_factory=list[Part])
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    """For evaluation.json, beside the metrics."""
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of predictions.parquet beside `sample`: arrays of a value for each, (N,) or (N, k)."""
    resamples: int = 0


def shown(value: float | None) -> str:
    """A number for a table, with four digits that count."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}" if abs(value) >= 10 else f"{value:.4f}"


def between(metric: Metric) -> str:
    """Its interval, in brackets; empty where it has none."""
    return "" if metric.low is None or metric.low != metric.low else f"[{shown(metric.low)}, {shown(metric.high)}]"
