"""What distinguishes a run from others, for TensorBoard's table: first what was typed for it, then the groups that decide the numbers.

Where a run runs and what it is called is no part of it; nor are values of the environment: the config has their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.config import tree

GROUPS = ("optim", "schedule", "train", "model", "data", "loader", "strategy", "task", "seed")
_HOW = (
    *("train.log_every", "train.save_every", "train.eval_every", "train.keep", "train.keep_best", "train.mtbf_hours"),
    *("train.hang_seconds", "train.compare_every", "train.layers_every", "train.round_batch", "train.encrypt"),
    *("data.cache", "data.fingerprint", "data.offline"),
)
"""They decide no number that training comes to."""
_PLACES = ("cluster.nodes", "cluster.processes_per_node")


def told(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`config` as it was frozen, `${oc.env:…}` and all. Path -> value, in the order of the table."""
    leaves = dict(tree.leaves(config))
    typed = [word.lstrip("+~").partition("=")[0].partition("@")[0] for word in overrides]
    kept = [path for path in leaves if _root(path) in GROUPS and path not in _HOW]
    kept.sort(key=lambda path: GROUPS.index(_root(path)))
    asked = [path for key in typed for path in leaves if _is_below(path, key) and (_root(path) in GROUPS or path in _PLACES)]
    return {path: leaves[path] for path in dict.fromkeys([*asked, *kept])}


def _root(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def _is_below(path: str, key: str) -> bool:
    return path == key or path.startswith((f"{key}.", f"{key}["))
