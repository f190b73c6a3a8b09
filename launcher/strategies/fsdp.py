"""Fully sharded data parallel: a model and what its optimizers keep are split over processes that each have a share of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.devices import CPU, CUDA
from launcher.errors import ConfigError
from launcher.plan import Mesh, World
from launcher.strategies.protocol import Layout, Split
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
    cpu_offload: bool = False
    """Whether pieces of weights, of gradients and of what optimizers keep lie in the host's memory, and updates are made there. A GPU then
    holds what is gathered, and activations; each piece crosses to it and its gradient back, and a CPU makes the update
    (torch.distributed.fsdp.CPUOffloadPolicy; Ren et al., 2021, https://arxiv.org/abs/2101.06840)."""
    prefetch: int = 0
    """Blocks ahead whose weights are asked for while one computes, forward and backward; each takes the memory of a block. 0: as torch does
    it, the next one in the backward pass."""

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
        if self.prefetch < 0:
            raise ConfigError(f"strategy.prefetch={self.prefetch} cannot be; type how many blocks ahead, or 0 for what torch does")
        if self.cpu_offload:
            self._check_offload(world, config)

    def _check_offload(self, world: World, config: Mapping[str, Any]) -> None:
        off = "type strategy.cpu_offload=false"
        if world.device == CPU:
            raise ConfigError(
                f"strategy.cpu_offload=true: on a CPU all lies in the host's memory as it is; {off}, or cluster.device={CUDA}"
            )
        if (shards := self.mesh(world).dp_shard) == 1:
            raise ConfigError(f"strategy.cpu_offload=true: pieces are kept there, and strategy.dp_shard={shards} leaves none; {off}")
        if config["train"]["precision"] == "fp16":
            raise ConfigError(
                "strategy.cpu_offload=true: the gradient scaler of fp16 looks at gradients on the GPU; type train.precision=bf16 or fp32"
            )

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        blocks, device = self._blocks(model, split.layout), accelerator.device
        made = shard(model, blocks, split, device, self.reshard_after_forward, self._policy(), offload=self.cpu_offload)
        if self.prefetch:
            _ask_ahead(made, blocks, self.prefetch)
        return made

    def release(self, prepared: Any) -> None:
        super().release(prepared)
        if self.cpu_offload:
            import torch

            # an evaluation without a backward pass may still be fetching weights, and the host is about to change them
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()

    def no_sync(self, prepared: Any) -> Any:
        return _unreduced(prepared) if self.whole_gradients else contextlib.nullcontext()

    def _blocks(self, model: Any, layout: Layout) -> list[Any]:
        return of_size(model, self.wrap_params) if self.wrap_params else of_class(model, self.wrap or layout.blocks)

    def _policy(self) -> dict[str, Any]:
        import torch

        named = {"param_dtype": self.param_dtype, "reduce_dtype": self.reduce_dtype}
        return {key: dtype and getattr(torch, dtype) for key, dtype in named.items()}


def _ask_ahead(model: Any, blocks: Sequence[Any], count: int) -> None:
    """Of a model that is split: each block, and the model with what is in none of them, asks for the weights of the next `count`, in the
    order in which the model lists them, which is that of its forward pass; in the backward pass for those before."""
    from torch.distributed.fsdp import FSDPModule

    known = {id(block) for block in blocks}
    ordered: list[Any] = [module for module in model.modules() if id(module) in known]
    if not isinstance(model, FSDPModule):  # one process has it whole
        return
    model.set_modules_to_forward_prefetch(ordered[:count])
    model.set_modules_to_backward_prefetch(ordered[: -count - 1 : -1])
    for place, block in enumerate(ordered):
        block.set_modules_to_forward_prefetch(ordered[place + 1 : place + 1 + count])
        block.set_modules_to_backward_prefetch(ordered[max(0, place - count) : place][::-1])


@contextlib.contextmanager
def _unreduced(prepared: Any) -> Generator[None]:
    prepared.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        prepared.set_requires_gradient_sync(True)
