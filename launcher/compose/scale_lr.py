"""`train.scale_lr`: rates that were found for one size of batch, brought to another.

Decided once, when a run is planned, as `train.round_batch` is: what is frozen is the rates, and that they are not to be scaled again. So
every line of the log has the rate that a step had, and a move to another world changes none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from launcher.config import tree
from launcher.errors import ConfigError

RULES = {"linear": 1.0, "sqrt": 0.5}
"""The power of the ratio of batches. linear: Goyal et al., 2017, https://arxiv.org/abs/1706.02677, section 2.1, for SGD. sqrt: Krizhevsky,
2014, https://arxiv.org/abs/1404.5997, section 5, where the variance of an update is to stay; You et al., 2020,
https://arxiv.org/abs/1904.00962, section 4, with LAMB."""
WANTED = "null, or {linear: 256} or {sqrt: 256} with the samples of an update that optim.lr is for"
RATES = ("lr", "adamw_lr")
_SAID: set[str] = set()


def is_scale(value: Any) -> bool:
    """A rule of launcher/compose/check.py."""
    if not tree.is_mapping(value):
        return value is None
    (rule, batch), *more = [*value.items()] or [("", 0)]
    return not more and rule in RULES and isinstance(batch, int) and not isinstance(batch, bool) and batch >= 1


def scale_lr(config: DictConfig, values: Mapping[str, Any]) -> bool:
    """Write the rates for `train.batch_size`, as it is by now, into `config`. Whether they are others than `values` has. Raises ConfigError
    where `optim` has none."""
    train: Mapping[str, Any] = values["train"]
    if train["scale_lr"] is None:
        return False
    ((rule, base),) = train["scale_lr"].items()
    places = [(), *((("groups", pattern)) for pattern in values["optim"].get("groups") or ())]
    rates = {(*place, key): rate for place in places for key, rate in _at(values["optim"], place).items() if key in RATES}
    if not rates:
        raise ConfigError(f"train.scale_lr: {values['optim']['_target_']} is given no lr; type optim.lr=…, or train.scale_lr=null")
    factor = (train["batch_size"] / base) ** RULES[rule]
    OmegaConf.update(config, "train.scale_lr", None)
    for (*place, key), rate in rates.items():
        scaled = float(f"{rate * factor:.12g}")
        _at(config["optim"], place)[key] = scaled
        where = ".".join(["optim", *place, key])
        _say(
            f"{where}={scaled:g}, not {rate:g}: for train.batch_size={train['batch_size']}, where {base} has that ({rule}, train.scale_lr)"
        )
    return True


def _at(node: Any, place: Any) -> Any:
    for key in place:  # a pattern has dots, which are no levels of keys
        node = node[key]
    return node


def _say(text: str) -> None:
    """Once, though the members of a sweep are planned one by one."""
    if text not in _SAID:
        _SAID.add(text)
        print(f"launcher: {text}", file=sys.stderr)
