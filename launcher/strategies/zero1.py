"""ZeRO, stage 1: whole weights where a model computes; what optimizers keep is split over the processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launcher.plan import Mesh, World
from launcher.strategies.protocol import Split
from launcher.strategies.sharded import Sharded, of_class, shard


@dataclass(frozen=True)
class ZeRO1(Sharded):
    """Rajbhandari et al., 2020, https://arxiv.org/abs/1910.02054, by fully_shard: each process updates its piece of the weights; they are
    gathered once an update and stay until its backward pass is done."""

    def mesh(self, world: World) -> Mesh:
        return Mesh(dp_shard=world.size)

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        blocks = of_class(model, split.layout.blocks)
        return shard(model, blocks, split, accelerator.device, reshard=False, policy={})
