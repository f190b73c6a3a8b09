"""What must survive a restart, as files of bytes and back: safetensors for tensors, JSON for the rest.

    model.safetensors      parameters (rank 0: replicas are equal)
    optimizer.safetensors  per parameter, by name: <parameter>|<state key>
    ema.safetensors        the averaged parameters
    state.json             step, position in the data, seconds, precision, what the run knows of its losses and layers, optimizer groups,
                           gradient scaler
    rank_<r>.safetensors   this rank's buffers, non-persistent ones too (BatchNorm statistics), and their averages; running totals; the
                           torch generators; of rank 0, which outputs of each layer have had no gradient yet
    rank_<r>.json          this rank's Python and NumPy generators, and what its running totals count

The learning-rate schedule and the order of samples are pure functions of what is in state.json.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import safetensors.torch as safetensors
import torch
from torch import nn

from launcher.errors import CheckpointError
from launcher.plan import Piece
from launcher.train.checkpoint.checkpoint import Content
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.stored import TrainState, as_written, record_in, state_of
from launcher.train.checkpoint.tensorfile import HostMemory
from launcher.train.ema import Ema, NoEma
from launcher.train.guard.layers import Layers
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter


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
    layers: Layers
    pieces: Mapping[str, Piece]
    """Of each parameter, what this rank holds."""


def replicated(parts: Parts) -> dict[str, list[torch.Tensor]]:
    """What a checkpoint holds once, for it should be equal on all ranks, in the same order on each."""
    states = [
        optimizer.state.get(parameter, {})
        for optimizer in parts.optimizers.each
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    kept = [state[key] for state in states for key in sorted(state) if isinstance(state[key], torch.Tensor)]
    return {"weights": list(parts.model.parameters()), "optimizer state": kept, "averages": list(_averages(parts)[0].values())}


class Snapshot:
    """This rank's files of a checkpoint, in host memory that is used again: one at a time."""

    def __init__(self) -> None:
        self._memory = HostMemory()

    def take(self, parts: Parts, state: TrainState, rank: int) -> dict[str, Content]:
        """Everything is copied when this returns, or, on a GPU, before the device does anything else: training may go on at once."""
        own, (totals, counts) = f"rank_{rank}.safetensors", parts.meter.state()
        silent = parts.layers.tensors()
        averages, own_averages = _averages(parts)
        files: dict[str, Content] = {
            own: self._memory.copy(own, {**_buffers(parts.model), **own_averages, **_torch_generators(parts.device), **totals, **silent}),
            f"rank_{rank}.json": _json({"generators": _host_generators(), "meter": counts}),
        }
        if rank != 0:
            return files
        tensors, values = _optimizer_state(parts)
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
    _load_optimizer(parts, safetensors.load(checkpoint.read("optimizer.safetensors")), shared["optimizer"])
    if parts.scaler and shared["scaler"]:
        parts.scaler.load_state_dict(shared["scaler"])
    parts.meter.load(own_tensors, own["meter"])
    parts.layers.load(own_tensors)
    if rank < checkpoint.world:
        _restore_generators(own["generators"], own_tensors, parts.device)
    return state_of(shared)


def _own(checkpoint: Checkpoint, rank: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What a rank wrote."""
    own, tensors = record_in(checkpoint, f"rank_{rank}.json"), safetensors.load(checkpoint.read(f"rank_{rank}.safetensors"))
    if "meter" in tensors:  # of an older launcher, which knew samples and sums
        sums, *left_out = tensors.pop("meter").split(2)
        tensors["totals"] = torch.cat([torch.zeros(2 - len(left_out)), *left_out, sums])
        own["meter"] = {"weight": own["meter"]["samples"], "steps": own["meter"]["steps"]}
    return own, tensors


def _joined(checkpoint: Checkpoint, rank: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What all ranks wrote, as one rank of another world needs it."""
    everyone = [_own(checkpoint, each) for each in range(checkpoint.world)]
    counts, tensors = everyone[rank if rank < checkpoint.world else 0]
    for name, tensor in tensors.items():
        if name.startswith(("buffer|", "average|")) and tensor.is_floating_point():
            tensors[name] = torch.stack([of[name].double() for _, of in everyone]).mean(0).to(tensor.dtype)
    totals = torch.stack([of["totals"] for _, of in everyone]).sum(0)
    tensors["totals"] = totals if rank == 0 else torch.zeros_like(totals)
    weight = sum(of["meter"]["weight"] for of, _ in everyone) if rank == 0 else 0
    return {**counts, "meter": {**counts["meter"], "weight": weight}}, tensors


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


# ---------------------------------------------------------------- optimizer, by parameter name


def _parameter_names(parts: Parts) -> list[str]:
    """Names in the order in which the optimizer numbers its parameters."""
    names = {id(parameter): name for name, parameter in parts.model.named_parameters()}
    return [names[id(parameter)] for group in parts.optimizers.each[0].param_groups for parameter in group["params"]]


def _optimizer_state(parts: Parts) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    names, whole = _parameter_names(parts), parts.optimizers.each[0].state_dict()
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for number, state in whole["state"].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{names[number]}|{key}"] = value
            else:
                values[f"{names[number]}|{key}"] = value
    groups = [{key: value for key, value in group.items() if key != "params"} for group in whole["param_groups"]]
    return tensors, {"values": values, "groups": groups}


def _load_optimizer(parts: Parts, tensors: dict[str, torch.Tensor], rest: dict[str, Any]) -> None:
    whole = parts.optimizers.each[0].state_dict()
    numbers = {name: number for number, name in enumerate(_parameter_names(parts))}
    parameters = dict(parts.model.named_parameters())
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *rest["values"].items()]:
        parameter, _, key = name.rpartition("|")
        if parameter not in numbers:
            raise CheckpointError(f"the checkpoint is of another model: its optimizer has {parameter}")
        state.setdefault(numbers[parameter], {})[key] = _strided_like(parameters[parameter], value)
    if len(whole["param_groups"]) != len(rest["groups"]):
        raise CheckpointError("the checkpoint is of another optimizer: it has other parameter groups")
    for group, saved in zip(whole["param_groups"], rest["groups"], strict=True):
        group.update({key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()})
    parts.optimizers.each[0].load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def _strided_like(parameter: torch.Tensor, value: Any) -> Any:
    """State lies in memory as its parameter does. The fused kernels pair elements by address: a contiguous momentum beside a
    channels-last filter would be applied to the wrong weights, in silence."""
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


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
