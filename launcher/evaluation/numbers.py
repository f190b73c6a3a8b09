"""Numbers to be found: how far off they are, beside what they should have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from launcher.evaluation.bootstrap import Numbers, intervals
from launcher.evaluation.findings import Chart, Findings, Metric, Series, Table, between, shown
from launcher.evaluation.taken import Rows

POINTS = 1_000
"""That a chart shows, spread over all samples."""
BARS = 30
MOST_DRAWN = 4
"""Numbers of a sample that have charts."""


class Taker:
    """`losses` of the task, of each sample."""

    def __init__(self, losses: Any) -> None:
        self._losses = losses
        self._parts: list[Rows] = []

    def add(self, outputs: Any, batch: Any, first: int) -> None:
        wanted = batch[1][:, None] if batch[1].ndim == 1 else batch[1]
        row = {"found": outputs.float(), "wanted": wanted.float(), "loss": self._losses(outputs, wanted.to(outputs.dtype)).float()}
        self._parts.append({name: each.detach().cpu() for name, each in row.items()})

    def rows(self) -> Rows:
        return {name: torch.cat([part[name] for part in self._parts]) for name in (self._parts[0] if self._parts else ())}


def findings(rows: Rows, values: dict[str, float], names: Sequence[str]) -> Findings:
    found, wanted, loss = (rows[name].numpy().astype(np.float64) for name in ("found", "wanted", "loss"))
    numbers = found.shape[1]
    off = found - wanted

    def statistic(weights: Numbers) -> Numbers:
        """loss, mae, rmse, r2; then mae, rmse and r2 of each number."""
        share = weights / weights.sum()
        mae, mse, mean = share @ np.abs(off), share @ off**2, share @ wanted
        spread = share @ (wanted - mean) ** 2
        r2 = np.where(spread > 0, 1 - mse / np.maximum(spread, 1e-300), (mse == 0).astype(np.float64))
        return np.concatenate(([share @ loss, mae.mean(), mse.mean() ** 0.5, r2.mean()], mae, mse**0.5, r2))

    drawn = intervals(len(found), statistic, cost=6.0 * found.size)
    metrics = [Metric(*map(float, each)) for each in zip(drawn.value, drawn.low, drawn.high, strict=True)]
    ours = dict(zip(("loss", "mae", "rmse", "r2"), metrics, strict=False))
    result = Findings(resamples=drawn.resamples)
    result.metrics = {
        name: ours[name]._replace(value=value) if name in ours else Metric(value) for name, value in values.items() if name != "samples"
    }
    each = [[metrics[4 + kind * numbers + number] for kind in range(3)] for number in range(numbers)]
    titles = [str(names[number]) if number < len(names) else f"number {number}" for number in range(numbers)]
    if numbers > 1:
        lines = [[title, *(f"{shown(of.value)} {between(of)}" for of in row)] for title, row in zip(titles, each, strict=True)]
        result.parts.append(Table("Numbers", ("number", "MAE", "RMSE", "R²"), lines, "With 95 % intervals."))
    for number, title in enumerate(titles[:MOST_DRAWN]):
        result.parts += _charts(number, title if numbers > 1 else "", found[:, number], wanted[:, number])
    worst = np.argsort(loss, kind="stable")[::-1][:20]
    lines = [[str(place), _listed(wanted[place]), _listed(found[place]), shown(float(loss[place]))] for place in worst]
    result.parts.append(Table("Furthest off", ("sample", "wanted", "found", "loss"), lines))
    result.details = {
        "numbers": [
            {"number": title} | {name: of._asdict() for name, of in zip(("mae", "rmse", "r2"), row, strict=True)}
            for title, row in zip(titles, each, strict=True)
        ]
    }
    result.columns = {"found": rows["found"].numpy(), "wanted": rows["wanted"].numpy(), "loss": rows["loss"].numpy()}
    return result


def _charts(number: int, title: str, found: Numbers, wanted: Numbers) -> list[Chart]:
    some = np.unique(np.linspace(0, len(found) - 1, min(POINTS, len(found))).astype(np.int64))
    off = found - wanted
    counts, edges = np.histogram(off, BARS)
    of = f" of {title}" if title else ""
    note = f"{len(some):,} of {len(found):,} samples." if len(some) < len(found) else ""
    points = [Series("samples", wanted[some].tolist(), values[some].tolist(), "points") for values in (found, off)]
    bars = Series("samples", ((edges[1:] + edges[:-1]) / 2).tolist(), counts.astype(np.float64).tolist(), "bars")
    return [
        Chart(f"found_{number}", f"Found against wanted{of}", "wanted", "found", points[:1], True, note),
        Chart(f"residuals_{number}", f"Residuals{of}", "wanted", "found - wanted", points[1:], False, note),
        Chart(f"errors_{number}", f"Errors{of}", "found - wanted", "samples", [bars]),
    ]


def _listed(values: Numbers) -> str:
    return ", ".join(shown(float(value)) for value in values[:8]) + (", …" if len(values) > 8 else "")
