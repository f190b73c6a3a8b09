"""Fully sharded data parallel: a model and what its optimizers keep are split over processes that each have a share of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.errors import ConfigError
from launcher.plan import Layout, Mesh, Split, World
from launcher.strategies.sharded import Sharded, degree, of_class, of_size, shard

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class FSDP(Sharded):
    """torch.distributed.fsdp.fully_shard (Zhao et al., 2023, https://arxiv.org/abs/2304.11277), block by block: each block's weights are
    gathered before it computes, and its gradients reduced to the pieces after."""

    dp_shard: int | str = "all"
    """Processes that hold a model between them: all, node (those of a node), or how many. With fewer than all it is hybrid sharded: as DDP
    over the groups of so many (section 3.2.2 there)."""
    wrap: Sequence[str] | None = None
    """Classes whose weights are gathered together; null: those that the model's file names in BLOCKS."""
    wrap_params: int = 0
    """Instead of that: modules with at least so many parameters that no module in them has; 0: by class."""
    reshard_after_forward: bool = True
    """Whether a block's weights are gathered again for its backward pass, and take no memory until then."""
    param_dtype: str | None = None
    """In which weights are gathered: bfloat16 halves what crosses the network where the run computes in that; null: as they are kept."""
    reduce_dtype: str | None = None
    """In which gradients are reduced; null: as param_dtype."""
    whole_gradients: bool = False
    """Whether those of an update's micro-batches are added up whole and reduced once, with the last: fewer messages, more memory."""

    def mesh(self, world: World) -> Mesh:
        shards = degree("dp_shard", self.dp_shard, "groups of so many processes", world)
        return Mesh(dp_replicate=world.size // shards, dp_shard=shards)

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        super().check(world, config, layout)
        if world.size > 1 and not self.wrap_params and not (self.wrap or layout.blocks):
            raise ConfigError(
                f"model: {config['model']['_target_']} names no blocks, so its weights would all be gathered at once; write "
                'BLOCKS = ("Block",) into its file, or type strategy.wrap=[Block] or strategy.wrap_params=1000000'
            )
        for key, dtype in (("param_dtype", self.param_dtype), ("reduce_dtype", self.reduce_dtype)):
            if dtype not in (None, *DTYPES):
                raise ConfigError(f"strategy.{key}={dtype} is no type that weights are sent in; type one of {', '.join(DTYPES)}, or null")

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        return shard(model, self._blocks(model, split.layout), split, accelerator.device, self.reshard_after_forward, self._policy())

    def no_sync(self, prepared: Any) -> Any:
        return _unreduced(prepared) if self.whole_gradients else contextlib.nullcontext()

    def _blocks(self, model: Any, layout: Layout) -> list[Any]:
        return of_size(model, self.wrap_params) if self.wrap_params else of_class(model, self.wrap or layout.blocks)

    def _policy(self) -> dict[str, Any]:
        import torch

        named = {"param_dtype": self.param_dtype, "reduce_dtype": self.reduce_dtype}
        return {key: dtype and getattr(torch, dtype) for key, dtype in named.items()}


@contextlib.contextmanager
def _unreduced(prepared: Any) -> Generator[None]:
    prepared.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        prepared.set_requires_gradient_sync(True)
