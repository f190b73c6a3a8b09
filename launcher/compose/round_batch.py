"""`train.round_batch`: the experiments that ship train on any number of processes, 3 and 6 among them.

Decided once, when a run is planned: what is frozen is the number, and that it is not to be rounded again. So a move to another world
keeps the samples of each update.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from omegaconf import DictConfig, OmegaConf

from launcher.plan import Mesh


def round_batch(config: DictConfig, train: dict[str, Any], mesh: Mesh) -> bool:
    """Write the nearest batch size that the shares of `mesh` divide into `config`. Whether that is another one than `train` has."""
    if not train["round_batch"]:
        return False
    batch = train["batch_size"]
    near = nearest(batch, mesh.dp_size * train["accumulate"])
    OmegaConf.update(config, "train.round_batch", False)
    if near == batch:
        train["round_batch"] = False
        return False
    OmegaConf.update(config, "train.batch_size", near)
    over = f"{shares(mesh)} x train.accumulate={train['accumulate']}"
    _say(f"train.batch_size={near}, not {batch}: the nearest that divides over {over} (train.round_batch)")
    return True


def shares(mesh: Mesh) -> str:
    """Who divides a batch, in words."""
    size = mesh.dp_size
    return f"{size} process{'es' * (size > 1)}" if size == mesh.size else f"{size} share{'s' * (size > 1)} of a mesh of {mesh}"


def nearest(batch: int, parts: int) -> int:
    """The multiple of `parts` nearest to `batch`, and no less than one."""
    return max(1, round(batch / parts)) * parts


@functools.cache
def _say(text: str) -> None:
    """Once, though the members of a sweep are planned one by one."""
    print(f"launcher: {text}", file=sys.stderr)
