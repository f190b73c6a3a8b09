"""What a rank of tests/store_ranks.py saves where it is one of two that train a small transformer under fsdp: its pieces, and what goes
with them. Each update follows from the step alone, so that a run of many attempts ends with the bits of one."""

from __future__ import annotations

from typing import Any

WORLD = 2


def preload() -> None:
    """In the process that forks, or each fork would import a thousand modules."""
    import torch._dynamo
    import torch.distributed.fsdp
    import torch.distributed.tensor
    import torch.fx.experimental.symbolic_shapes  # noqa: F401  # each fork has it then

    import launcher.strategies.deferred
    import launcher.strategies.fsdp
    import launcher.train.checkpoint.state  # noqa: F401  # each fork has it then
    import models.transformer  # noqa: F401  # each fork has it then


class Sharded:
    def __init__(self, rank: int, attempt: int) -> None:
        from types import SimpleNamespace

        import torch
        from torch.distributed.device_mesh import init_device_mesh

        from launcher.plan import Mesh
        from launcher.strategies.fsdp import FSDP
        from launcher.strategies.protocol import Layout, Split
        from launcher.train.checkpoint.state import Parts, Snapshot
        from launcher.train.ema import Ema
        from launcher.train.optimizers import Optimizers
        from launcher.train.record.meter import Meter
        from models.transformer import BLOCKS, Transformer

        cpu, coordinate, strategy = torch.device("cpu"), Mesh(dp_shard=WORLD).at(rank), FSDP()
        device_mesh = init_device_mesh("cpu", (WORLD,), mesh_dim_names=("dp_shard",))
        torch.manual_seed(0)
        model = strategy.build(lambda: Transformer(vocab_size=128, dim=32, layers=2, heads=4), cpu)
        self.model = strategy.prepare(SimpleNamespace(device=cpu), model, Split(coordinate, device_mesh, Layout(BLOCKS)))
        optimizers = Optimizers([torch.optim.AdamW(self.model.parameters(), fused=True)], self.model)
        pieces = strategy.pieces(self.model, coordinate)
        self.parts = Parts(self.model, optimizers, None, Ema(self.model, 0.9), Meter(cpu), cpu, pieces=pieces, coordinate=coordinate)
        self._snapshot, self._rank, self._attempt = Snapshot(), rank, attempt

    def load(self, checkpoint: Any) -> None:
        from launcher.train.checkpoint.state import restore

        assert restore(self.parts, checkpoint, self._rank).step == checkpoint.step

    def content(self, step: int) -> Any:
        """Trains the update that leads to `step`."""
        import torch

        from launcher.strategies import draws
        from launcher.train.checkpoint.stored import TrainState

        draws.plant(1000 * step + self._rank)
        self.parts.optimizers.zero_grad()
        self.model(torch.randint(0, 128, (4, 16))).square().mean().backward()
        self.parts.optimizers.step()
        self.parts.ema.update(step)
        return self._snapshot.take(self.parts, TrainState(step=step, seconds=self._attempt), self._rank)
