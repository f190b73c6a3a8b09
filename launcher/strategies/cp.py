"""Context parallel: a sequence is cut over processes, each of which computes on its part; attention gathers the keys and values of all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import ConfigError
from launcher.plan import Mesh, World
from launcher.strategies.protocol import Compute, Layout, Split
from launcher.strategies.sharded import Sharded, degree, of_class, shard


@dataclass(frozen=True)
class CP(Sharded):
    """That of Llama 3 (Llama Team, 2024, https://arxiv.org/abs/2407.21783, section 3.3.2): keys and values are gathered before each
    attention, and with grouped queries they are small beside what a part of the sequence computes. Weights lie in pieces over the parts, as
    by FSDP; what is left of the world has copies, as by HSDP."""

    cp: int | str = "all"
    """Processes that each sequence is cut over: all, node (those of a node), or how many."""
    on_cpu: bool = False
    """Whether it may be tried out where there is no GPU."""

    def mesh(self, world: World) -> Mesh:
        parts = degree("cp", self.cp, "sequences in so many parts", world)
        return Mesh(dp_replicate=world.size // parts, cp=parts)

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        super().check(world, config, layout)
        parts, model = self.mesh(world).cp, config["model"]["_target_"]
        if world.device == "cpu" and not self.on_cpu:
            raise ConfigError(
                "strategy=cp is for sequences too long for the memory of one GPU, and this run is on CPUs; type strategy=fsdp, or "
                "strategy.on_cpu=true to try it out"
            )
        if world.size == 1:
            return
        if parts == 1:
            raise ConfigError(f"strategy.cp={self.cp}: a sequence in one part is whole; type strategy=ddp, or strategy=fsdp")
        if not layout.context_parallel or not layout.blocks:
            raise ConfigError(
                f"model: {model} does not say what goes along a sequence; write BLOCKS and CONTEXT_PARALLEL into its file, as "
                "models/transformer.py has them, or type strategy=fsdp"
            )
        if config["train"]["compile"] is True:
            raise ConfigError("train.compile=true compiles a model whole, and attention waits for others; type train.compile=blocks")
        length = config["data"].get("length")
        if isinstance(length, int) and length % (2 * parts):
            raise ConfigError(
                f"data.length={length} cannot be cut over strategy.cp={parts}, of which each has two pieces; type a multiple of {2 * parts}"
            )

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        from launcher.strategies import context

        blocks = of_class(model, split.layout.blocks)
        if split.coordinate.mesh.cp > 1:
            context.cut(model, blocks, split.layout.context_parallel, split.device_mesh["cp"].get_group())
        return shard(model, blocks, split, accelerator.device, reshard=True, policy={}, over="cp")

    def forward_backward(self, prepared: Any, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        from launcher.strategies import context, trial

        if (sequences := context.CUT.get(prepared)) is None:
            super().forward_backward(prepared, micro_batches, count, compute)
            return
        if not sequences.is_tried:
            first = next(micro_batches)
            trial.hold(sequences, prepared, first, compute)
            sequences.is_tried = True
            self.release(prepared)
            micro_batches = itertools.chain([first], micro_batches)
        with sequences.in_parts():
            super().forward_backward(prepared, map(sequences.part, micro_batches), count, compute)

    def evaluated(self, prepared: Any, model: Any) -> Any:
        from launcher.strategies import context

        sequences = context.CUT.get(model)
        return model if sequences is None else sequences.evaluated(model)
