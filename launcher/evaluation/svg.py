"""Charts as SVG within a page: no script, no font, no file beside it. Colours are the page's, so that they suit light and dark."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape

from launcher.evaluation.findings import Chart, Heat, shown

WIDTH, HEIGHT = 420, 280
"""Small: a page of 400 pixels shows letters as large as one of 1280."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 40
_TICKS = 5
_CHARACTERS = 14
"""Of a class's name beside a matrix."""


def chart(of: Chart) -> str:
    """Raises ValueError where there is nothing to draw."""
    xs = [x for series in of.series for x in series.x if math.isfinite(x)]
    ys = [y for series in of.series for y in series.y if math.isfinite(y)]
    if not xs or not ys:
        raise ValueError(f"{of.title} has no value")
    if of.names:
        return _named(of)
    has_bars = any(series.kind == "bars" for series in of.series)
    if of.diagonal:
        xs, ys = [*xs, *ys], [*xs, *ys]
    step = _bar_step(of) if has_bars else 0.0
    x = _Axis(_padded(min(xs) - step / 2, max(xs) + step / 2), _LEFT, WIDTH - _RIGHT)
    y = _Axis(_padded(min(0.0, *ys) if has_bars else min(ys), max(ys)), HEIGHT - _BOTTOM, _TOP)
    body = [_frame(x, y, of.x, of.y)]
    if of.diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        body.append(f'<line class="diagonal" x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(high):.1f}" y2="{y(high):.1f}"/>')
    for number, series in enumerate(of.series):
        body += _series(series.kind, [*zip(series.x, series.y, strict=True)], x, y, number, step)
    if len(of.series) > 1:
        body += [_key(number, series.name) for number, series in enumerate(of.series)]
    return _svg(of.title, HEIGHT, body)


def _named(of: Chart) -> str:
    """Bars that lie, a name and a number each: of any number of them the names can be read."""
    values = of.series[0].y
    left, right, row = 104, 44, 18
    x = _Axis((min(0.0, *values), max(0.0, *values) or 1.0), left, WIDTH - right)
    bottom = _TOP + row * len(values)
    body = [f'<line class="grid" x1="{x(0):.1f}" y1="{_TOP}" x2="{x(0):.1f}" y2="{bottom}"/>']
    for place, (name, value) in enumerate(zip(of.names, values, strict=True)):
        top, said = _TOP + row * place, f"<title>{escape(name)}: {shown(value)}</title>"
        at = f'x="{min(x(0), x(value)):.1f}" y="{top + 3}" width="{abs(x(value) - x(0)):.1f}" height="{row - 6}"'
        body.append(f'<text x="{left - 5}" y="{top + 13}" text-anchor="end">{escape(_short(name))}</text>')
        body.append(f'<rect class="mark bar c0" {at}>{said}</rect>')
        body.append(f'<text x="{max(x(0), x(value)) + 4:.1f}" y="{top + 13}">{shown(value)}</text>')
    body.append(f'<text class="axis" x="{(x.begin + x.end) / 2}" y="{bottom + 16}" text-anchor="middle">{escape(of.y)}</text>')
    return _svg(of.title, bottom + 22, body)


def heat(of: Heat) -> str:
    """A matrix of shares of its rows."""
    count = len(of.names)
    left, top = 92, 74
    side = (WIDTH - left - 8) / count
    body: list[str] = []
    for row, counts in enumerate(of.counts):
        total = sum(counts) or 1
        for column, value in enumerate(counts):
            share = value / total
            at = f'x="{left + column * side:.1f}" y="{top + row * side:.1f}" width="{side:.1f}" height="{side:.1f}"'
            said = f"{of.names[row]}, {of.x} {of.names[column]}: {value:,.0f} ({share:.1%})"
            body.append(f'<rect class="mark cell" {at} fill-opacity="{share:.3f}"><title>{escape(said)}</title></rect>')
            if count <= 12 and value:
                middle = f'x="{left + (column + 0.5) * side:.1f}" y="{top + (row + 0.5) * side + 3:.1f}"'
                body.append(f'<text class="count{" on" if share > 0.5 else ""}" {middle} text-anchor="middle">{value:,.0f}</text>')
    for place, name in enumerate(of.names):
        if side >= 8:
            middle, said = (place + 0.5) * side, escape(_short(name))
            body.append(f'<text x="{left - 4}" y="{top + middle + 3:.1f}" text-anchor="end">{said}</text>')
            at = f"{left + middle + 3:.1f} {top - 4}"
            body.append(f'<text transform="translate({at}) rotate(-60)">{said}</text>')
    body.append(f'<text class="axis" x="{WIDTH - 8}" y="12" text-anchor="end">{escape(of.x)}</text>')
    body.append(f'<text class="axis" x="4" y="{top - 6}">{escape(of.y)}</text>')
    return _svg(of.title, round(top + side * count + 8), body)


def _key(number: int, name: str) -> str:
    at = f'x="{WIDTH - _RIGHT - 4}" y="{_TOP + 14 + 14 * number}"'
    return f'<text class="key c{number % 4}" {at} text-anchor="end">{escape(name)}</text>'


class _Axis:
    def __init__(self, span: tuple[float, float], begin: float, end: float) -> None:
        self.low, self.high = span
        self.begin, self.end = begin, end

    def __call__(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self) -> list[float]:
        rough = (self.high - self.low) / _TICKS
        size = 10 ** math.floor(math.log10(rough))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
        first = math.ceil(self.low / step)
        return [step * number for number in range(first, math.floor(self.high / step) + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    return (low if low == 0 else low - room), high + room


def _bar_step(of: Chart) -> float:
    xs = sorted({x for series in of.series if series.kind == "bars" for x in series.x})
    gaps = [after - before for before, after in itertools.pairwise(xs)]
    return min(gaps) if gaps else 1.0


def _frame(x: _Axis, y: _Axis, x_name: str, y_name: str) -> str:
    lines = [f'<line class="grid" x1="{x(tick):.1f}" y1="{y.begin}" x2="{x(tick):.1f}" y2="{y.end}"/>' for tick in x.ticks()]
    lines += [f'<line class="grid" x1="{x.begin}" y1="{y(tick):.1f}" x2="{x.end}" y2="{y(tick):.1f}"/>' for tick in y.ticks()]
    lines += [f'<text x="{x(tick):.1f}" y="{y.begin + 14}" text-anchor="middle">{_tick(tick)}</text>' for tick in x.ticks()]
    lines += [f'<text x="{x.begin - 5}" y="{y(tick) + 3:.1f}" text-anchor="end">{_tick(tick)}</text>' for tick in y.ticks()]
    lines.append(f'<text class="axis" x="{(x.begin + x.end) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>')
    middle = (y.begin + y.end) / 2
    lines.append(f'<text class="axis" transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>')
    return "".join(lines)


def _tick(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _series(kind: str, points: Sequence[tuple[float, float]], x: _Axis, y: _Axis, number: int, step: float) -> list[str]:
    points = [(px, py) for px, py in points if math.isfinite(px) and math.isfinite(py)]
    colour = f"c{number % 4}"
    if kind == "bars":
        half, floor = step * 0.45, y(0)
        return [
            f'<rect class="mark bar {colour}" x="{x(px - half):.1f}" y="{min(y(py), floor):.1f}" width="{x(px + half) - x(px - half):.1f}" '
            f'height="{abs(y(py) - floor):.1f}"><title>{shown(px)}: {shown(py)}</title></rect>'
            for px, py in points
        ]
    dots = [
        f'<circle class="mark dot {colour}" cx="{x(px):.1f}" cy="{y(py):.1f}" r="{3 if kind == "line" else 2}">'
        f"<title>{shown(px)}: {shown(py)}</title></circle>"
        for px, py in points
        if kind == "points" or len(points) <= 40
    ]
    if kind == "line" and len(points) > 1:
        path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in points)
        return [f'<polyline class="mark line {colour}" points="{path}"/>', *dots]
    return dots


def _short(name: str) -> str:
    return name if len(name) <= _CHARACTERS else f"{name[: _CHARACTERS - 1]}…"


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    said = escape(title)
    return f'<svg role="img" aria-label="{said}" viewBox="0 0 {WIDTH} {height}"><title>{said}</title>{"".join(body)}</svg>'
