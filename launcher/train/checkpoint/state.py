"""What must survive a restart, as files of bytes and back: safetensors for tensors, JSON for the rest.

    model.safetensors      parameters (rank 0: replicas are equal)
    optimizer.safetensors  what the optimizers remember, tensors by name (optimizer_state.py)
    ema.safetensors        the averaged parameters
    state.json             step, position in the data, seconds, precision, what the run knows of its losses and layers, the rest of what the
                           optimizers remember, gradient scaler
    rank_<r>.safetensors   this rank's buffers, non-persistent ones too (BatchNorm statistics), and their averages; running totals; the
                           torch generators; of rank 0, which outputs of each layer have had no gradient yet
    rank_<r>.json          this rank's Python and NumPy generators, and what its running totals count

The learning-rate schedule and the order of samples are pure functions of what is in state.json.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import safetensors.torch as safetensors
import torch
from torch import nn

from launcher.errors import CheckpointError
from launcher.train.checkpoint import optimizer_state
from launcher.train.checkpoint.checkpoint import Content
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.stored import TrainState, as_written, record_in, state_of
from launcher.train.checkpoint.tensorfile import HostMemory
from launcher.train.ema import Ema, NoEma
from launcher.train.guard.layers import Layers
from launcher.train.optimizers import Optimizers
from launcher.train.record.metrics import Meter


@dataclass
class Parts:
    """The objects whose insides a checkpoint holds."""

    model: nn.Module
    """The inner module."""
    optimizers: Optimizers
    scaler: torch.amp.GradScaler | None
    ema: Ema | NoEma
    meter: Meter
    device: torch.device
    layers: Layers | None = None


def replicated(parts: Parts) -> dict[str, list[torch.Tensor]]:
    """What a checkpoint holds once, for it should be equal on all ranks, in the same order on each."""
    weights: list[torch.Tensor] = list(parts.model.parameters())
    averages = list(_averages(parts)[0].values())
    return {"weights": weights, "optimizer state": optimizer_state.tensors_of(parts.optimizers), "averages": averages}


class Snapshot:
    """This rank's files of a checkpoint, in host memory that is used again: one at a time."""

    def __init__(self) -> None:
        self._memory = HostMemory()

    def take(self, parts: Parts, state: TrainState, rank: int) -> dict[str, Content]:
        """Everything is copied when this returns, or, on a GPU, before the device does anything else: training may go on at once."""
        own, totals = f"rank_{rank}.safetensors", parts.meter.state()
        silent = parts.layers.tensors() if parts.layers else {}
        averages, own_averages = _averages(parts)
        files: dict[str, Content] = {
            own: self._memory.copy(
                own, {**_buffers(parts.model), **own_averages, **_torch_generators(parts.device), **totals.tensors, **silent}
            ),
            f"rank_{rank}.json": _json({"generators": _host_generators(), "meter": totals.counts}),
        }
        if rank != 0:
            return files
        tensors, values = optimizer_state.unfold(parts.optimizers)
        files["model.safetensors"] = self._memory.copy("model", dict(parts.model.named_parameters()), finite=True)
        files["optimizer.safetensors"] = self._memory.copy("optimizer", tensors, finite=True)
        files["ema.safetensors"] = self._memory.copy("ema", averages)
        scaler = parts.scaler.state_dict() if parts.scaler else None
        files["state.json"] = _json({"state": asdict(state), "optimizer": values, "scaler": scaler, "torch": torch.__version__})
        return files


def inexact(device: torch.device, deterministic: bool) -> str:
    """What to say of a resume that may differ in the last bits; empty where it may not."""
    if device.type == "cpu" or deterministic:
        return ""
    return "train.deterministic=false: on a GPU the last bits may differ from those of a run that was not interrupted"


def restore(parts: Parts, checkpoint: Checkpoint, rank: int, world: int) -> TrainState:
    """Load everything in place. Raises CheckpointError where the checkpoint is of another model or optimizer.

    In another world than it was written in: every rank gets the mean of the ranks' buffers, rank 0 the sum of their running totals, and a
    rank that was not there before keeps the generators it has.
    """
    with as_written(checkpoint):
        return _restore(parts, checkpoint, rank, world)


def _restore(parts: Parts, checkpoint: Checkpoint, rank: int, world: int) -> TrainState:
    shared = record_in(checkpoint, "state.json")
    own, own_tensors = _own(checkpoint, rank) if checkpoint.world == world else _joined(checkpoint, rank)
    with torch.no_grad():
        _copy(checkpoint, "model.safetensors", dict(parts.model.named_parameters()))
        averages, own_averages = _averages(parts)
        _copy(checkpoint, "ema.safetensors", averages)
        for name, tensor in {**_buffers(parts.model), **own_averages}.items():
            tensor.copy_(_taken(checkpoint, own_tensors, name, tensor))
    optimizer_state.fold(parts.optimizers, safetensors.load(checkpoint.read("optimizer.safetensors")), shared["optimizer"])
    if parts.scaler and shared["scaler"]:
        parts.scaler.load_state_dict(shared["scaler"])
    parts.meter.load(own_tensors, own["meter"])
    if parts.layers:
        parts.layers.load(own_tensors)
    if rank < checkpoint.world:
        _restore_generators(own["generators"], own_tensors, parts.device)
    return state_of(shared)


def _own(checkpoint: Checkpoint, rank: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a rank wrote."""
    return record_in(checkpoint, f"rank_{rank}.json"), safetensors.load(checkpoint.read(f"rank_{rank}.safetensors"))


def _joined(checkpoint: Checkpoint, rank: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What all ranks wrote, as one rank of another world needs it."""
    everyone = [_own(checkpoint, each) for each in range(checkpoint.world)]
    counts, tensors = everyone[rank if rank < checkpoint.world else 0]
    for name, tensor in tensors.items():
        if name.startswith(("buffer|", "average|")) and tensor.is_floating_point():
            tensors[name] = torch.stack([of[name].double() for _, of in everyone]).mean(0).to(tensor.dtype)
    totals = torch.stack([of["meter"] for _, of in everyone]).sum(0)
    tensors["meter"] = totals if rank == 0 else torch.zeros_like(totals)
    samples = sum(of["meter"]["samples"] for of, _ in everyone) if rank == 0 else 0
    return {**counts, "meter": {**counts["meter"], "samples": samples}}, tensors


def _json(value: Any) -> Content:
    return (json.dumps(value).encode(),)


def _taken(checkpoint: Checkpoint, tensors: dict[str, torch.Tensor], name: str, like: torch.Tensor) -> torch.Tensor:
    if name not in tensors or tensors[name].shape != like.shape:
        found = f"shape {tuple(tensors[name].shape)}" if name in tensors else "nothing"
        raise CheckpointError(f"{checkpoint.path} is of another model: {name} needs shape {tuple(like.shape)} and it has {found}")
    return tensors[name]


def _copy(checkpoint: Checkpoint, file: str, into: dict[str, torch.Tensor]) -> None:
    tensors = safetensors.load(checkpoint.read(file))
    for name, tensor in into.items():
        tensor.copy_(_taken(checkpoint, tensors, name, tensor))


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"buffer|{name}": buffer for name, buffer in model.named_buffers()}


def _averages(parts: Parts) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of the parameters, equal on all ranks; of the buffers, each rank's own as these are."""
    averages = dict(zip(parts.ema.names, parts.ema.shadow, strict=True))
    own = {f"average|{name}": averages.pop(name) for name, _ in parts.model.named_buffers() if name in averages}
    return averages, own


# ---------------------------------------------------------------- generators


def _torch_generators(device: torch.device) -> dict[str, torch.Tensor]:
    generators = {"generator|cpu": torch.get_rng_state()}
    if device.type == "cuda":
        generators["generator|cuda"] = torch.cuda.get_rng_state(device)
    return generators


def _host_generators() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
    }


def _restore_generators(host: dict[str, Any], tensors: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(tensors["generator|cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["generator|cuda"], device)
    version, numbers, gauss = host["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = host["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
