"""Data parallel: every process holds the whole model and a share of each batch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher.errors import ConfigError
from launcher.plan import Layout, Split, World
from launcher.strategies.replicated import Replicated


@dataclass(frozen=True)
class DDP(Replicated):
    """torch.nn.parallel.DistributedDataParallel (Li et al., 2020, https://arxiv.org/abs/2006.15704), set up by Accelerate."""

    bucket_mb: int = 25
    """Gradients are reduced in buckets of this size while backward goes on."""

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        if self.bucket_mb < 1:
            raise ConfigError(f"strategy.bucket_mb={self.bucket_mb} cannot be; type a whole number of MB from 1")

    def accelerator_handlers(self) -> list[Any]:
        from accelerate.utils import DistributedDataParallelKwargs  # pyright: ignore[reportMissingTypeStubs]  # it has none

        # Buffers stay each rank's own (BatchNorm statistics, averaged where a model is evaluated): broadcasting them
        # costs a collective per forward and throws the other ranks' statistics away.
        return [DistributedDataParallelKwargs(bucket_cap_mb=self.bucket_mb, broadcast_buffers=False, gradient_as_bucket_view=True)]

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        with warnings.catch_warnings():
            # torch 2.13 renames broadcast_buffers, for which Accelerate 1.15 has no word yet
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            return accelerator.prepare_model(model)

    def no_sync(self, prepared: Any) -> Any:
        return prepared.no_sync() if hasattr(prepared, "no_sync") else contextlib.nullcontext()
