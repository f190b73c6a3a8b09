"""A program: one process of a world that takes two steps with a transformer of 12 layers, and what they took by torch's own accounting.

    python accounted.py RANK WORLD FILE     FILE: where the processes meet

Prints JSON: bytes of parameters, in whatever tensor there is before the first step (`alive`); and of parameters, gradients and optimizer
state, what this process keeps of them when an update is made (`held`) and the most (`peak`, of torch.distributed._tools' tracker, where all
memory was most, with what is gathered and sent for them).
"""

from __future__ import annotations

import gc
import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh

from launcher.plan import Mesh
from launcher.strategies.fsdp import FSDP
from launcher.strategies.protocol import Layout, Split
from launcher.train.local import local
from models.transformer import BLOCKS, Transformer

OTHER = ("ACT", "BUFFER", "TEMP", "INP", "OTH", "Total")
"""Of the tracker's kinds, those that have nothing to do with parameters."""


def main(rank: int, world: int, file: str) -> None:
    torch.set_num_threads(1)
    device_mesh = None
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
        device_mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("dp_shard",))
    strategy, cpu = FSDP(), torch.device("cpu")
    model = strategy.build(lambda: Transformer(dim=128, layers=12), cpu)
    split = Split(Mesh(dp_shard=world).at(rank), device_mesh, Layout(BLOCKS))
    model = strategy.prepare(SimpleNamespace(device=cpu), model, split)
    alive = _alive()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tracker: Any = FSDPMemTracker(model, optimizer) if world > 1 else MemTracker()
    if world == 1:
        tracker.track_external(model, optimizer)
    with tracker:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.arange(64).view(2, 32)).square().mean().backward()
            optimizer.step()
            tracker.reset_mod_stats()
    state = [tensor for each in optimizer.state.values() for tensor in each.values()]
    held = [*model.parameters(), *(parameter.grad for parameter in model.parameters()), *state]
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    kinds = {str(kind).rpartition(".")[2]: count for kind, count in peak.items()}
    print(json.dumps({
        "alive": alive,
        "held": sum(local(tensor).nbytes for tensor in held),
        "peak": sum(count for kind, count in kinds.items() if kind not in OTHER),
    }))  # fmt: skip
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def _alive() -> int:
    """Bytes of all tensors that somebody holds, by their memory."""
    gc.collect()
    real = [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter) and not each.is_meta]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in real}.values())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
