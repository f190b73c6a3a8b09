"""Data parallel: every process holds the whole model and a share of each batch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import ConfigError
from launcher.plan import World
from launcher.strategies.protocol import Layout, Split
from launcher.strategies.replicated import Replicated

_HOOKS = {"none": "NO", "fp16": "FP16", "bf16": "BF16", "powersgd": "POWER_SGD"}


@dataclass(frozen=True)
class DDP(Replicated):
    """torch.nn.parallel.DistributedDataParallel (Li et al., 2020, https://arxiv.org/abs/2006.15704), set up by Accelerate."""

    bucket_mb: int = 25
    """Gradients are reduced in buckets of this size while backward goes on."""
    comm_hook: str = "none"
    """What crosses the network in their place. none; fp16, bf16: half as much, rounded; powersgd: factors of low rank, and what they leave
    out is added to the next gradient (Vogels et al., 2019, https://arxiv.org/abs/1905.13727)."""
    powersgd_rank: int = 1
    powersgd_start: int = 1000
    """Updates before the first that is compressed: early gradients are large and change fast."""
    static_graph: bool = False
    """The model computes the same in every step, no part of it is left out in some: DDP looks for such parts once."""

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        if self.bucket_mb < 1:
            raise ConfigError(f"strategy.bucket_mb={self.bucket_mb} cannot be; type a whole number of MB from 1")
        if self.comm_hook not in _HOOKS:
            raise ConfigError(f"strategy.comm_hook={self.comm_hook} is none; type one of {', '.join(_HOOKS)}")
        if self.comm_hook == "bf16" and world.device == "cpu":
            raise ConfigError("strategy.comm_hook=bf16: gloo, by which CPUs talk, cannot add bfloat16; type fp16, or none")
        if self.static_graph and config["train"]["accumulate"] > 1:  # an assertion in torch 2.13, reducer.cpp, expect_autograd_hooks_
            raise ConfigError("strategy.static_graph=true: DDP cannot leave out a reduction then; type train.accumulate=1")
        for key, value, least in (("rank", self.powersgd_rank, 1), ("start", self.powersgd_start, 2)):
            if value < least:
                raise ConfigError(f"strategy.powersgd_{key}={value} cannot be; type a whole number from {least}")
        if self.comm_hook == "powersgd":
            warnings.warn(
                "strategy.comm_hook=powersgd: what it carries from update to update is in no checkpoint, so that a run that was resumed is "
                "not equal to one that was not interrupted",
                stacklevel=2,
            )

    def accelerator_handlers(self) -> list[Any]:
        from accelerate.utils import DDPCommunicationHookType, DistributedDataParallelKwargs  # pyright: ignore[reportMissingTypeStubs]  # it has none

        hook = getattr(DDPCommunicationHookType, _HOOKS[self.comm_hook])
        powersgd = {"matrix_approximation_rank": self.powersgd_rank, "start_powerSGD_iter": self.powersgd_start}
        # Buffers stay each rank's own (BatchNorm statistics, averaged where a model is evaluated): broadcasting them
        # costs a collective per forward and throws the other ranks' statistics away.
        return [
            DistributedDataParallelKwargs(
                bucket_cap_mb=self.bucket_mb,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                static_graph=self.static_graph,
                comm_hook=hook,
                comm_state_option=powersgd,
            )
        ]

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        with warnings.catch_warnings():
            # torch 2.13 renames broadcast_buffers, for which Accelerate 1.15 has no word yet
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            return accelerator.prepare_model(model)

    def no_sync(self, prepared: Any) -> Any:
        return prepared.no_sync() if hasattr(prepared, "no_sync") else contextlib.nullcontext()
