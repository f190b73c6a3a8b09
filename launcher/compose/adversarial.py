"""`train.adversarial`: what may be asked for, and where it cannot be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.config import tree
from launcher.errors import ConfigError
from launcher.plan import Mesh

KINDS = ("fgsm", "pgd")
WANTED = (
    "null, fgsm, pgd, or {kind: pgd, epsilon: 0.0314, steps: 7} with epsilon above 0 to 1, in units of a pixel, and steps for pgd alone"
)


def is_adversarial(value: Any) -> bool:
    """Whether `train.adversarial` can be so."""
    if not tree.is_mapping(value):
        return value is None or (isinstance(value, str) and value in KINDS)
    kind, epsilon, steps = (value.get(key) for key in ("kind", "epsilon", "steps"))
    is_close = epsilon is None or (isinstance(epsilon, int | float) and not isinstance(epsilon, bool) and 0 < epsilon <= 1)
    is_many = steps is None or (kind == "pgd" and isinstance(steps, int) and not isinstance(steps, bool) and steps >= 1)
    return {*value} <= {"kind", "epsilon", "steps"} and kind in KINDS and is_close and is_many


def check(config: Mapping[str, Any], mesh: Mesh) -> None:
    """Raises ConfigError where it cannot be meant, or not with this task, optimizer or strategy."""
    asked, task = config["train"]["adversarial"], str(config["task"]["_target_"])
    if not is_adversarial(asked):
        raise ConfigError(f"train.adversarial={tree.shown(asked)} cannot be; type {WANTED}")
    if asked is None:
        return
    off = "type train.adversarial=null"
    if task.startswith("launcher.train.tasks.") and not task.endswith(".Classification"):
        raise ConfigError(f"train.adversarial changes images that have a class, and {task} has none; {off}")
    if mesh.size != mesh.dp_replicate:
        raise ConfigError(
            f"train.adversarial needs the whole model in each process, and strategy._target_={config['strategy']['_target_']} cuts it "
            f"({mesh}); type strategy=ddp, or train.adversarial=null"
        )
    if str(config["optim"]["_target_"]).lower().endswith(".lbfgs"):  # of others the worker knows
        raise ConfigError(
            "train.adversarial: LBFGS searches along one loss, and at each weight that it tries an attack makes another; type optim=sgd, "
            "or train.adversarial=null"
        )
