"""Joining the world, and leaving it: the device of a process, the process group, Accelerate."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from launcher.devices import CPU, KINDS
from launcher.errors import TrainingFailed
from launcher.node.place import Place
from launcher.plan import ORDER, Mesh, Plan
from launcher.strategies.protocol import Strategy
from launcher.train.device import is_host, take
from launcher.train.world import meeting
from launcher.train.world.patience import Patience, tell_nccl
from launcher.train.world.proof import prove
from launcher.train.world.ranks import Ranks


def device(plan: Plan, place: Place) -> torch.device:
    """Of this process. Raises ConfigError where torch sees none for it, or one that is not among those that the plan trusts."""
    taken = take(plan.world.device, place.local_rank, plan.trusted_devices)
    if is_host(taken):
        torch.set_num_threads(plan.threads)
    return taken


def join(plan: Plan, place: Place, patience: Patience) -> None:
    """Meet the other processes."""
    if place.world == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)  # one process needs no process group and no DDP around its model
    else:
        _join_group(plan, place, patience)


def accelerate(plan: Plan, place: Place, strategy: Strategy) -> Accelerator:
    """Every field passed, so that no environment variable decides one. Raises TrainingFailed where it made another world."""
    accelerator = Accelerator(
        cpu=plan.world.device == CPU,
        mixed_precision="no",  # ours: see train/arithmetic.py
        gradient_accumulation_steps=1,  # ours: see train/step.py
        rng_types=[],
        kwargs_handlers=strategy.accelerator_handlers(),
    )
    if accelerator.num_processes != place.world:
        raise TrainingFailed(f"Accelerate made a world of {accelerator.num_processes}, torchrun one of {place.world}; nothing was trained")
    return accelerator


def _join_group(plan: Plan, place: Place, patience: Patience) -> None:
    """Make the process group ourselves, of processes that have the key; Accelerate takes the one it finds.

    NCCL's connections need no proof of ours: whoever connects has to know the number that rank 0 left in the store.
    """
    on_cpu, backend = plan.world.device == CPU, KINDS[plan.world.device].backend
    if not on_cpu:
        tell_nccl(Path(plan.run_dir, "attempts", f"{place.attempt:03d}"), patience)
    dist.init_process_group(
        backend,
        store=meeting.store(plan, place),
        rank=place.rank,
        world_size=place.world,
        timeout=patience.gloo if on_cpu else patience.nccl,
    )
    if on_cpu:
        prove(None, f"world.{place.restart}")


def ranks(place: Place, patience: Patience, name: str) -> Ranks:
    """A group for small messages; `name`: another for each."""
    made = Ranks(place.rank, place.world, patience.gloo)
    if made.group is not None:
        prove(made.group, f"{name}.{place.restart}")
    return made


def peers(mesh: Mesh, place: Place, patience: Patience, everyone: Ranks) -> Ranks:
    """The ranks that have the same part of the model as this one: all of them where each has the whole."""
    if mesh.dp_size == mesh.size:
        return everyone
    columns: dict[tuple[int, int, int], list[int]] = {}
    for rank in range(mesh.size):
        at = mesh.at(rank)
        columns.setdefault((at.cp, at.tp, at.pp), []).append(rank)
    own = everyone
    for members in columns.values():  # every rank makes every group, in the same order
        made = Ranks(place.rank, place.world, patience.gloo, members)
        if place.rank in members:
            own = made
    if own.group is not None:
        prove(own.group, f"peers {own.members[0]}.{place.restart}")
    return own


def device_mesh(mesh: Mesh, place: Place, patience: Patience, device: torch.device) -> DeviceMesh | None:
    """torch's name for a mesh, of the dimensions that have more than one process; None where each process has the whole model.

    With groups of our own: those that torch makes wait half an hour for whoever does not come, and take whoever connects.
    """
    sizes = {name: size for name in ORDER if (size := getattr(mesh, name)) > 1}
    if mesh.dp_replicate == mesh.size:
        return None
    grid = torch.arange(mesh.size).view(*sizes.values())
    groups = [_groups_along(grid, dimension, name, place, patience, device) for dimension, name in enumerate(sizes)]
    if len(groups) == 1:
        return DeviceMesh.from_group(groups[0], device.type, mesh_dim_names=tuple(sizes))
    return DeviceMesh.from_group(groups, device.type, grid, mesh_dim_names=tuple(sizes))


def _groups_along(grid: torch.Tensor, dimension: int, name: str, place: Place, patience: Patience, device: torch.device) -> ProcessGroup:
    """Every rank makes every group along that dimension, in the same order. Returns its own."""
    on_cpu, own = device.type == CPU, None
    for members in grid.movedim(dimension, -1).flatten(0, -2).tolist() if grid.ndim > 1 else [grid.tolist()]:
        made = dist.new_group(members, timeout=patience.gloo if on_cpu else patience.nccl, group_desc=f"{name} {members[0]}")
        if place.rank in members:
            own = made
            if on_cpu:
                prove(made, f"{name} {members[0]}.{place.restart}")
    return cast("ProcessGroup", own)


def leave(accelerator: Accelerator, ranks: Ranks) -> None:
    """In this order: gloo processes otherwise die at exit with SIGABRT after all work is done."""
    accelerator.free_memory()
    gc.collect()
    ranks.wait()
    accelerator.end_training()
