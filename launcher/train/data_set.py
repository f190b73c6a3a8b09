"""The data set of a config: one object, or one for each split. data/loader.py says what a data set is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from launcher.config import targets
from launcher.errors import ConfigError


def build(node: Mapping[str, Any]) -> Any:
    """What the node's class makes; where that takes a `split` which the node does not say, a dict of one for each split that there is.
    Raises ConfigError."""
    if not _is_by_split(node):
        return targets.build(node)
    made = {split: _of_split(node, split) for split in ("train", "val", "test")}
    return {split: data for split, data in made.items() if data is not None}


def first(node: Mapping[str, Any]) -> Any:
    """The object that says what there is to say of all: the only one, or that for train. Raises ConfigError."""
    return targets.build(node, **({"split": "train"} if _is_by_split(node) else {}))


def _is_by_split(node: Mapping[str, Any]) -> bool:
    try:
        known = inspect.signature(targets.imported(node)).parameters
    except (TypeError, ValueError):  # of a class that is written in C nobody knows them
        return False
    return "split" in known and "split" not in node


def _of_split(node: Mapping[str, Any], split: str) -> Any:
    """None where there is no such split: the constructor's ValueError or KeyError is its name, or has it in quotes. Raises ConfigError."""
    try:
        return targets.build(node, split=split)
    except (ConfigError, KeyError) as error:
        cause = error.__cause__ or error
        if split == "train" or not isinstance(cause, ValueError | KeyError) or not re.search(rf"^{split}$|['\"]{split}['\"]", str(cause)):
            raise
        return None
