"""Tokens of texts: how well each is foreseen, and which texts are hard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from launcher.answers.texts import written
from launcher.evaluation.bootstrap import Numbers, intervals
from launcher.evaluation.findings import Chart, Findings, Metric, Series, Texts
from launcher.evaluation.taken import Most, Rows, most

SHOWN = 3
"""Texts of each kind."""
BARS = 30


class Taker:
    def __init__(self) -> None:
        self._parts: list[Rows] = []
        self._along: torch.Tensor | None = None
        self._hardest, self._easiest = Most(SHOWN), Most(SHOWN)

    def add(self, outputs: Any, batch: Any, first: int) -> None:
        tokens, targets = batch[:2]
        nats = F.cross_entropy(outputs.float().flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
        loss = nats.mean(1).detach()
        count = torch.full((len(targets),), targets.shape[1], dtype=torch.int64)
        self._parts.append({"loss": loss.float().cpu(), "tokens": count})
        along = nats.double().sum(0).cpu()
        self._along = along if self._along is None else self._along + along
        self._hardest.add(loss, first, lambda best: {"tokens": tokens[best]})
        self._easiest.add(-loss, first, lambda best: {"tokens": tokens[best]})

    def rows(self) -> Rows:
        whole = {name: torch.cat([part[name] for part in self._parts]) for name in (self._parts[0] if self._parts else ())}
        along = {} if self._along is None else {"along": self._along[None]}
        return {**whole, **along, **self._hardest.rows("hardest"), **self._easiest.rows("easiest")}


def findings(rows: Rows, values: dict[str, float], names: Sequence[str]) -> Findings:
    """Intervals are over sequences: tokens of one text are not drawn apart."""
    loss, tokens = rows["loss"].numpy().astype(np.float64), rows["tokens"].numpy().astype(np.float64)

    def statistic(weights: Numbers) -> Numbers:
        nats = float((weights * loss * tokens).sum() / (weights * tokens).sum())
        return np.array([nats, np.exp(min(nats, 700.0)), nats / np.log(2)])

    drawn = intervals(len(loss), statistic)
    ours = {
        name: Metric(*map(float, each))
        for name, *each in zip(("loss", "perplexity", "bits_per_token"), drawn.value, drawn.low, drawn.high, strict=True)
    }
    result = Findings(resamples=drawn.resamples)
    result.metrics = {
        name: ours[name]._replace(value=value) if name in ours else Metric(value) for name, value in values.items() if name != "samples"
    }
    result.metrics["bits_per_token"] = ours["bits_per_token"]
    counts, edges = np.histogram(loss, BARS)
    bars = Series("sequences", ((edges[1:] + edges[:-1]) / 2).tolist(), counts.astype(np.float64).tolist(), "bars")
    result.parts.append(Chart("sequences", "Loss of the sequences", "nats per token", "sequences", [bars]))
    along = (rows["along"].sum(0) / len(loss)).tolist()
    line = Series("all sequences", [float(place) for place in range(len(along))], along)
    note = "What is foreseen with more before it should cost less."
    result.parts.append(Chart("context", "Loss by the place in the sequence", "tokens before it", "nats per token", [line], False, note))
    for name, title in (("hardest", "Hardest sequences"), ("easiest", "Easiest sequences")):
        best = most(rows, name, SHOWN)
        texts = [
            (f"sequence {int(place)}, {loss[int(place)]:.3f} nats per token", written(each.tolist(), names))
            for place, each in zip(best["place"], best["tokens"], strict=True)
        ]
        result.parts.append(Texts(title, texts))
    result.details = {"tokens": int(tokens.sum()), "loss_by_place": along}
    result.columns = {"loss": rows["loss"].numpy(), "tokens": rows["tokens"].numpy()}
    return result
