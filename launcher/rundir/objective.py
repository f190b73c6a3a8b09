"""What a sweep is judged by, and a run that may end early: an entry of the summaries, and which way is better."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

from launcher.config import tree

EARLY_STOP = "null, or {patience: 3}, evaluations that may be no better, with metric, mode (max or min) and min_delta if you like"
WANTED = "the name of a metric, such as val_accuracy, or {metric: val_mape, mode: min} with mode max or min"

_LESS = """loss losses error errors err perplexity ppl mae mse rmse msle rmsle mape smape wmape mase wer cer mer ter eer fid kid nll
bce crossentropy entropy kl divergence distance latency seconds ece brier hinge regret lpips chamfer fpr fnr fdr deviance"""
_LOWER = frozenset(_LESS.split())
MODES = ("max", "min")


class Objective(NamedTuple):
    metric: str
    mode: str
    """max | min"""

    @classmethod
    def of(cls, written: Any) -> Objective:
        """`written` as the config or a ledger has it; what `is_objective` takes."""
        if tree.is_mapping(written):
            return cls(str(written["metric"]), str(written.get("mode") or _mode_of(str(written["metric"]))))
        return cls(str(written), _mode_of(str(written)))

    def __str__(self) -> str:
        return f"{self.metric}, {'highest' if self.mode == 'max' else 'lowest'} first"

    def found_in(self, summaries: Iterable[Mapping[str, Any]], *, same_name: bool = False) -> Objective:
        """This one if any summary has it; else what comes nearest: the test part's of that name (no validation part, or a run from
        before there was one in the summary), and unless `same_name` a loss. Itself where there is none of these."""
        rows = list(summaries)
        before, _, name = self.metric.partition("_")
        twin = Objective(f"{ {'val': 'test', 'test': 'val'}.get(before, before) }_{name}", self.mode)
        losses = () if same_name else (Objective("val_loss", "min"), Objective("test_loss", "min"))
        return next((each for each in (self, twin, *losses) if any(is_number(row.get(each.metric)) for row in rows)), self)


def is_objective(value: Any) -> bool:
    """Whether it can be one; a rule of launcher/compose/check.py."""
    if not tree.is_mapping(value):
        return isinstance(value, str) and bool(value)
    metric = value.get("metric")
    return {*value} <= {"metric", "mode"} and isinstance(metric, str) and bool(metric) and value.get("mode", "max") in MODES


def is_early_stop(value: Any) -> bool:
    """Whether `train.early_stop` can be so; a rule too."""
    if not tree.is_mapping(value):
        return value is None
    patience, delta, metric, mode = (value.get(key) for key in ("patience", "min_delta", "metric", "mode"))
    is_patience = isinstance(patience, int) and not isinstance(patience, bool) and patience >= 1
    is_named = (metric is None and mode is None) or is_objective({"metric": metric, **({} if mode is None else {"mode": mode})})
    is_known = {*value} <= {"patience", "min_delta", "metric", "mode"}
    return is_known and is_patience and is_named and (delta is None or (is_number(delta) and delta >= 0))


def is_number(value: Any) -> TypeGuard[float]:
    """nan is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _mode_of(metric: str) -> str:
    """min where a word of the name says that less is better, max for all else."""
    return "min" if _LOWER.intersection(re.findall(r"[a-z]+", metric.lower())) else "max"
