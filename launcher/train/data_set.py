"""A data set of the config: one object, or one for each split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.config import targets

HELD_OUT = ("val", "test")


def build(node: Mapping[str, Any]) -> Any:
    """What the node's class makes; where it takes a `split` that the node does not say, a dict of one for each split that it has
    (data/loader.py has the rule). Raises ConfigError."""
    known = targets.signature(node["_target_"])
    if known is None or "split" not in known.annotations or "split" in node:
        return targets.build(node)
    made = {"train": targets.build(node, split="train")}
    for split in HELD_OUT:
        try:
            made[split] = targets.make(node, split=split)
        except (ValueError, KeyError):
            continue
    return made


def each(data: Any) -> list[Any]:
    return list(data.values()) if isinstance(data, dict) else [data]
