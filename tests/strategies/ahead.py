"""A program: one of two processes that train a transformer of four layers under fsdp, once for each of several options.

    python ahead.py RANK FILE     FILE: where the processes meet

Prints JSON: by option the losses and the weights that are left, as they are to the bit, and which blocks each module asks for ahead.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy

from launcher.plan import Mesh
from launcher.strategies.fsdp import FSDP
from launcher.strategies.protocol import Layout, Split
from launcher.train.guard.replicas import checksum
from launcher.train.local import local
from launcher.train.norm import Norm
from launcher.train.optimizers import Optimizers
from models.transformer import BLOCKS, Transformer

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "prefetch=1": {"prefetch": 1},
    "prefetch=2": {"prefetch": 2},
    "prefetch=9": {"prefetch": 9},
    "cpu_offload": {"cpu_offload": True},  # of a CPU it is refused before a run; torch's part of it works there too
}


def trained(strategy: FSDP, rank: int, device_mesh: Any) -> dict[str, Any]:
    cpu, coordinate = torch.device("cpu"), Mesh(dp_shard=2).at(rank)
    torch.manual_seed(0)
    model = strategy.build(lambda: Transformer(vocab_size=128, dim=32, layers=4, heads=4), cpu)
    model = strategy.prepare(SimpleNamespace(device=cpu), model, Split(coordinate, device_mesh, Layout(BLOCKS)))
    optimizers = Optimizers([torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)], model)
    norm = Norm(optimizers, 1.0, strategy.pieces(model, coordinate), rank, 2)
    drawn, losses, norms = torch.Generator().manual_seed(rank), [], []
    for _ in range(4):
        tokens = torch.randint(0, 128, (2, 17), generator=drawn)
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        losses.append(loss.item().hex())
        norms.append(norm.clip().item().hex())
        optimizers.step()
        optimizers.zero_grad()
    with torch.no_grad():
        model(tokens[:, :-1])
    strategy.release(model)
    names = {id(module._get_fsdp_state()): name for name, module in model.named_modules() if hasattr(module, "_get_fsdp_state")}

    def asked(kind: str) -> dict[str, list[str]]:
        modules = {name: model.get_submodule(name) for name in names.values()}
        return {name: [names[id(each)] for each in getattr(module._get_fsdp_state(), kind)] for name, module in modules.items()}

    groups = [
        group for module in model.modules() if hasattr(module, "_get_fsdp_state") for group in module._get_fsdp_state()._fsdp_param_groups
    ]
    return {
        "losses": losses,
        "norms": norms,
        "weights": int(checksum([local(parameter) for parameter in model.parameters()])),
        "forward": asked("_states_to_forward_prefetch"),
        "backward": asked("_states_to_backward_prefetch"),
        "offloaded": all(isinstance(group.offload_policy, CPUOffloadPolicy) for group in groups),
    }


def main(rank: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    device_mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("dp_shard",))
    found = {name: trained(FSDP(**options), rank, device_mesh) for name, options in OPTIONS.items()}
    print(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
