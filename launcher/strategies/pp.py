"""Pipeline parallel: a model is cut into stages, and the micro-batches of an update are under way in all of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.errors import ConfigError
from launcher.plan import Coordinate, Mesh, World
from launcher.strategies.protocol import Compute, Layout, Piece, Split
from launcher.strategies.sharded import Sharded, alike, degree, of_class, place, shard, tie, tied

_SCHEDULES = {"gpipe": "GPipe", "1f1b": "1F1B", "interleaved": "Interleaved1F1B", "zero_bubble": "InterleavedZeroBubble"}
"""By the names that torch has for them."""


@dataclass(frozen=True)
class PP(Sharded):
    """torch.distributed.pipelining, by the modules that the model's file names in STAGES; over what is left of the world each stage is held
    as by DDP or by FSDP."""

    pp: int | str = "all"
    """Processes that have a part of the model each: all, node (those of a node), or how many."""
    dp_shard: int | str = 1
    """Processes that hold a stage between them, as by FSDP: all of those that share it, or how many; 1: each has it whole, as by DDP."""
    schedule: str = "1f1b"
    """What is computed when. gpipe: all forward passes, then all backward (Huang et al., 2019, https://arxiv.org/abs/1811.06965); 1f1b: in
    turn, so that fewer activations are kept (PipeDream-Flush, Narayanan et al., 2021, https://arxiv.org/abs/2006.09503); interleaved: so,
    with several stages for each process (https://arxiv.org/abs/2104.04473, section 2.2); zero_bubble: gradients of weights when nothing
    else is to do (Qi et al., 2023, https://arxiv.org/abs/2401.10241)."""
    stages_per_process: int = 1
    """More than one with interleaved and zero_bubble."""
    cut: Sequence[str] | None = None
    """Names of the modules that a stage begins with, but the first; null: so that each has about as many parameters."""

    def mesh(self, world: World) -> Mesh:
        parts = degree("pp", self.pp, "stages", world)
        rest = World(1, world.size // parts, world.device)
        shards = degree("dp_shard", self.dp_shard, "groups of so many processes for each stage", rest)
        return Mesh(dp_replicate=rest.size // shards, dp_shard=shards, pp=parts)

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        mesh = self.mesh(world)
        if mesh.dp_shard > 1:
            super().check(world, config, layout)
        if self.schedule not in _SCHEDULES:
            raise ConfigError(f"strategy.schedule={self.schedule} is none; type one of {', '.join(_SCHEDULES)}")
        if self.stages_per_process < 1 or (self.stages_per_process > 1 and self.schedule in ("gpipe", "1f1b")):
            raise ConfigError(
                f"strategy.stages_per_process={self.stages_per_process} cannot be with strategy.schedule={self.schedule}; type 1, "
                "or a larger number with interleaved or zero_bubble"
            )
        if self.schedule == "zero_bubble" and mesh.dp_shard > 1:  # torch 2.13 leaves no gradients then
            raise ConfigError("strategy.schedule=zero_bubble: torch cannot hold its stages in pieces; type strategy.dp_shard=1, or 1f1b")
        if mesh.is_staged:
            self._check_config(mesh.pp, config, layout)
        elif world.size > 1:
            raise ConfigError(f"strategy.pp={self.pp}: one stage is no pipeline; type strategy=ddp, or strategy=fsdp")

    def _check_config(self, parts: int, config: Mapping[str, Any], layout: Layout) -> None:
        train = config["train"]
        if not layout.stages:
            raise ConfigError(
                f"model: {config['model']['_target_']} does not say what it is a row of; write STAGES into its file, as "
                "models/transformer.py has it, or type strategy=fsdp"
            )
        if train["accumulate"] < parts or (self.stages_per_process > 1 and train["accumulate"] % parts):
            idle = {count: (parts - 1) / (count + parts - 1) for count in (parts, 4 * parts)}
            raise ConfigError(
                f"train.accumulate={train['accumulate']}: too few micro-batches for {parts} stages; type a multiple of {parts}: "
                + ", ".join(f"with {count} a process idles for {share:.0%} of the time" for count, share in idle.items())
            )
        if config["optim"]["_target_"].rpartition(".")[2].lower() == "lbfgs":
            raise ConfigError("optim: LBFGS evaluates all of a model again as it goes; type optim=adamw, or strategy=ddp")
        if train["channels_last"] is True:
            raise ConfigError("train.channels_last=true: what stages send is sent as it lies in memory; type train.channels_last=auto")
        if train["compile"] is True:
            raise ConfigError("train.compile=true compiles a model whole, and no process has the whole; type train.compile=blocks")

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        if not split.coordinate.mesh.is_staged:
            return shard(model, of_class(model, split.layout.blocks), split, accelerator.device, reshard=True, policy={})
        from launcher.strategies import stages
        from launcher.strategies.pipeline import Pipeline

        parts, at = split.coordinate.mesh.pp, split.coordinate.pp
        count = parts * self.stages_per_process
        shares = stages.shares(model, stages.units(model, split.layout.stages), count, self.cut)
        own = [stages.stage(model, shares, number) for number in range(at, count, parts)]
        twins = list(tied(model))
        stages.leave(model, shares, [number % parts for number in range(count)], at)
        for stage in own:
            blocks = of_class(stage.module, split.layout.blocks, anyway=True)
            shard(stage.module, blocks, split, accelerator.device, reshard=True, policy={}, whole=model)
        tie(twins)
        made = Pipeline(model, own, count, split.device_mesh["pp"].get_group(), accelerator.device, _SCHEDULES[self.schedule])
        made.twins = [
            (tensor, next(iter(places - {at}))) for tensor, places in stages.held(model, at) if len(places) > 1 and tensor.requires_grad
        ]
        if split.coordinate.mesh.dp_shard == 1 and split.coordinate.mesh.dp_replicate > 1:
            made.replicas = split.device_mesh["dp_replicate"].get_group()
        return made

    def forward_backward(self, prepared: Any, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        from launcher.strategies.pipeline import Pipeline

        if isinstance(prepared, Pipeline):
            prepared.update(micro_batches, count, compute)
        else:
            super().forward_backward(prepared, micro_batches, count, compute)

    def evaluated(self, prepared: Any, model: Any) -> Any:
        return prepared

    def release(self, prepared: Any) -> None:
        from launcher.strategies.pipeline import Pipeline

        if isinstance(prepared, Pipeline):
            prepared.release()
        else:
            super().release(prepared)

    def pieces(self, model: Any, coordinate: Coordinate) -> Mapping[str, Piece]:
        from launcher.strategies.stages import HOLDERS

        if (holders := HOLDERS.get(model)) is None:
            return super().pieces(model, coordinate)
        found: dict[str, Piece] = {}
        for name, tensor in model.named_parameters():
            holder, (offset, over) = holders[name], place(tensor)
            here = coordinate.pp in holder.places
            found[name] = Piece(holder.shape, offset if here else (0,) * len(holder.shape), alike(coordinate, over, holder.places))
        return found
