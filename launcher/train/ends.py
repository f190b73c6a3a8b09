"""Where a run is over before its last step: its metric gets no better, or its seconds are used up. And which of its steps was the best.

All of it is a function of the state and of what evaluations say, which are the same on every rank and are saved: a run that was
interrupted ends where one that was not does (early stopping: Prechelt, 1998, https://doi.org/10.1007/3-540-49430-8_3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import ConfigError
from launcher.rundir.objective import Objective
from launcher.train.checkpoint.stored import TrainState
from launcher.trust import reading


@dataclass(frozen=True)
class Ends:
    """Judges the evaluations of one run."""

    objective: Objective
    patience: int = 0
    """Evaluations in a row that may be no better; 0: any number."""
    min_delta: float = 0.0
    """By how much one has to be better than the last that counted."""
    is_named: bool = False
    """Whether the metric was asked for by its name, and no other will do."""

    @classmethod
    def of(cls, early_stop: Mapping[str, Any] | None, objective: Any) -> Ends:
        """Of `train.early_stop` and `objective` as the config has them."""
        if early_stop is None:
            return cls(Objective.of(objective))
        named = early_stop.get("metric")
        written = objective if named is None else {"metric": named, "mode": early_stop.get("mode")}
        return cls(Objective.of(written), early_stop["patience"], early_stop.get("min_delta", 0.0), named is not None)

    def judge(self, state: TrainState, values: Mapping[str, float]) -> str:
        """Take down what an evaluation of the validation part says, and what to tell of it; empty: nothing. `state.ended` says whether the
        run is over. Raises ConfigError where the metric is none of theirs."""
        entries = {f"val_{name}": value for name, value in values.items() if name != "samples"}
        there = dict.fromkeys(entries, 0.0)  # by name: what is no number at this evaluation is at the next
        objective = self.objective if self.is_named else self.objective.found_in([there])
        if objective.metric not in entries:
            if self.patience:
                known = ", ".join(entries) or "nothing, for there is no validation part"
                raise ConfigError(
                    f"train.early_stop: evaluations say nothing of {objective.metric}; type another metric in it ({known}), or "
                    "train.early_stop=null"
                )
            return ""
        value, sign = entries[objective.metric], 1.0 if objective.mode == "max" else -1.0
        if reading.number(value) is not None:  # neither nan nor infinite, which no checkpoint holds
            is_first, gained = not state.best_step, sign * (value - state.best_value)
            is_enough = is_first or sign * (value - state.to_beat) > self.min_delta
            if is_first or gained > 0:
                state.best_step, state.best_value = state.step, value
            if is_enough:
                state.to_beat, state.worse = value, 0
                return ""
        state.worse += 1
        if not self.patience or state.worse < self.patience:
            return ""
        state.ended = "early_stop"
        best = f"the best was {state.best_value:.4f} at step {state.best_step}" if state.best_step else "it has been no number yet"
        return f"{objective.metric} is no better after {state.worse} evaluations, and {best}: the run ends (train.early_stop)"
