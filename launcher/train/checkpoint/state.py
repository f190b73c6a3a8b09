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
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from launcher.errors import CheckpointError
from launcher.plan import Coordinate, Mesh
from launcher.strategies.protocol import Piece
from launcher.train import device
from launcher.train.checkpoint import generators, optimizer_state, pieces
from launcher.train.checkpoint.checkpoint import Content
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.pieces import Kept, Stored
from launcher.train.checkpoint.slices import Files, Held, Means
from launcher.train.checkpoint.stored import TrainState, as_written, record_in, state_of
from launcher.train.checkpoint.tensorfile import HostMemory
from launcher.train.device import Stream
from launcher.train.ema import Ema, NoEma
from launcher.train.guard.layers import Layers
from launcher.train.local import local
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
    layers: Layers = field(default_factory=lambda: Layers(nn.Module(), 0))
    pieces: Mapping[str, Piece] = field(default_factory=dict[str, Piece])
    """Of each parameter, what this rank holds; empty: of each all, as rank 0 does."""
    coordinate: Coordinate = field(default_factory=lambda: Mesh().at(0))


def replicated(parts: Parts) -> dict[str, list[torch.Tensor]]:
    """What a checkpoint holds once, for it should be equal on all ranks, in the same order on each."""
    weights = [local(parameter) for parameter in parts.model.parameters()]
    averages = list(_averages(parts)[0].values())
    return {"weights": weights, "optimizer state": optimizer_state.tensors_of(parts.optimizers), "averages": averages}


class Snapshot:
    """This rank's files of a checkpoint, in host memory that is used again: one at a time."""

    def __init__(self) -> None:
        self._memory = HostMemory()
        self._stream: Stream | None = None

    def aside(self, where: torch.device) -> Stream | None:
        """Of a GPU the stream on which `take` copies what updates change, behind all that the device has been told to do so far."""
        if device.has_streams(where):
            stream = self._stream = self._stream or device.stream(where)
            stream.wait_stream(device.current_stream(where))
        return self._stream

    def take(self, parts: Parts, state: TrainState, rank: int) -> dict[str, Content]:
        """Everything is copied when this returns. On a GPU what a forward pass changes, buffers and totals, is before the device does
        anything else, and the rest beside it: the next update waits for that. Training may go on at once.
        """
        stream = self.aside(parts.device)
        own, (totals, counts) = f"rank_{rank}.safetensors", parts.meter.state()
        silent = parts.layers.tensors()
        averages, own_averages = _averages(parts)
        files: dict[str, Content] = {
            own: self._memory.copy(
                own, {**_buffers(parts.model), **own_averages, **generators.on_device(parts.device), **totals, **silent}
            ),
        }
        parameters = _parameters(parts.model)
        tensors, values = optimizer_state.unfold(parts.optimizers)
        for kind, held, finite in (("model", parameters, True), ("optimizer", tensors, True), ("ema", averages, False)):
            ours = pieces.written_by(rank, parts.pieces, held)
            if ours or rank == 0:
                file = self._memory.copy(kind, ours, stream, finite=finite)
                parts.optimizers.wait_for(file.copied)
                files[pieces.file_name(kind, rank)] = file
        known = {"generators": generators.on_host(), "meter": counts, "counts": parts.coordinate.counts}
        if rank:
            known["optimizer"] = pieces.written_by(rank, parts.pieces, values["values"])
        files[f"rank_{rank}.json"] = _json({**known, **pieces.layout(rank, parts.pieces, parameters)})
        if rank != 0:
            return files
        scaler = parts.scaler.state_dict() if parts.scaler else None
        rest = {"optimizer": values, "scaler": scaler, "torch": torch.__version__, "mesh": asdict(parts.coordinate.mesh)}
        files["state.json"] = _json({"state": asdict(state), **rest})
        return files


def inexact(where: torch.device, deterministic: bool) -> str:
    """What to say of a resume that may differ in the last bits; empty where it may not."""
    if device.is_host(where) or deterministic:
        return ""
    return "train.deterministic=false: on a GPU the last bits may differ from those of a run that was not interrupted"


def restore(parts: Parts, checkpoint: Checkpoint, rank: int) -> TrainState:
    """Load everything in place. Raises CheckpointError where the checkpoint is of another model or optimizer.

    In another mesh than it was written in: every rank gets the mean of the ranks' buffers, rank 0 the sum of their running totals; those of
    one share of the data have that share's generators, and keep what they have where there was no such share.
    """
    with as_written(checkpoint), Files(checkpoint) as files:
        return _restore(parts, files, rank)


def _restore(parts: Parts, files: Files, rank: int) -> TrainState:
    checkpoint = files.checkpoint
    shared = record_in(checkpoint, "state.json")
    before = Mesh(**shared["mesh"]) if "mesh" in shared else Mesh(dp_replicate=checkpoint.world)  # an older launcher knew no other
    if before.size != checkpoint.world:
        raise CheckpointError(f"{checkpoint.path}: a mesh of {before} does not fill a world of {checkpoint.world}")
    if before == parts.coordinate.mesh:
        share, (own, own_tensors) = rank, _own(files, rank)
        if any(name not in own_tensors for name in (*_buffers(parts.model), *_averages(parts)[1])):  # stages were cut elsewhere
            others = [_own(files, each)[1] for each in range(checkpoint.world)]
            own_tensors = Means(others, rank, ("buffer|", "average|"), {"totals": own_tensors["totals"]})
    else:
        share = next((each for each in range(before.size) if before.at(each).dp_rank == parts.coordinate.dp_rank), None)
        own, own_tensors = _joined(files, share or 0, parts.coordinate.is_first_to_count)
    with torch.no_grad():
        parameters = pieces.held(rank, parts.pieces, _parameters(parts.model))
        _fill(Stored(files, "model"), parameters, parts.pieces)
        averages, own_averages = _averages(parts)
        averages = pieces.held(rank, parts.pieces, averages)
        _fill(Stored(files, "ema"), averages, parts.pieces)
        for name, tensor in {**_buffers(parts.model), **own_averages}.items():
            tensor.copy_(_taken(checkpoint, own_tensors, name, tensor))
    optimizer = shared["optimizer"]
    optimizer["values"] = pieces.held(rank, parts.pieces, _values(checkpoint, before, optimizer["values"]))
    optimizer_state.fold(parts.optimizers, Kept(files, parameters, parts.pieces), optimizer)
    if parts.scaler and shared["scaler"]:
        parts.scaler.load_state_dict(shared["scaler"])
    parts.meter.load(own_tensors, own["meter"])
    parts.layers.load(own_tensors)
    if share is not None:
        generators.restore(own["generators"], own_tensors, parts.device)
    return state_of(shared)


def _values(checkpoint: Checkpoint, mesh: Mesh, of_first: dict[str, Any]) -> dict[str, Any]:
    """What is no tensor of all that optimizers kept: of a pipeline each stage wrote its own."""
    values = dict(of_first)
    for rank in range(1, mesh.size if mesh.is_staged else 1):
        values |= record_in(checkpoint, f"rank_{rank}.json").get("optimizer", {})
    return values


def _own(files: Files, rank: int) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
    """What a rank wrote."""
    own, tensors = record_in(files.checkpoint, f"rank_{rank}.json"), Held(files, f"rank_{rank}.safetensors")
    if "meter" in tensors:  # of an older launcher, which knew samples and sums
        sums, *left_out = tensors["meter"].split(2)
        own["meter"] = {"weight": own["meter"]["samples"], "steps": own["meter"]["steps"]}
        tensors.more["totals"] = torch.cat([torch.zeros(2 - len(left_out)), *left_out, sums])
    return own, tensors


def _joined(files: Files, share: int, takes_totals: bool) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
    """What all ranks wrote, as one rank of another mesh needs it; `share`: the one that it takes the rest of."""
    everyone = [_own(files, each) for each in range(files.checkpoint.world)]
    counts = everyone[share][0]
    counting = [(of["meter"], tensors["totals"]) for of, tensors in everyone if of.get("counts", True)]
    totals = torch.stack([totals for _, totals in counting]).sum(0)
    totals = totals if takes_totals else torch.zeros_like(totals)
    weight = sum(meter["weight"] for meter, _ in counting) if takes_totals else 0
    means = Means([tensors for _, tensors in everyone], share, ("buffer|", "average|"), {"totals": totals})
    return {**counts, "meter": {**counts["meter"], "weight": weight}}, means


def _json(value: Any) -> Content:
    return (json.dumps(value).encode(),)


def _taken(checkpoint: Checkpoint, tensors: Mapping[str, torch.Tensor], name: str, like: torch.Tensor) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != like.shape:
        found = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
        raise CheckpointError(f"{checkpoint.path} is of another model: {name} needs shape {tuple(like.shape)} and it has {found}")
    return tensor


def _fill(stored: Stored, into: Mapping[str, torch.Tensor], held: Mapping[str, Piece]) -> None:
    for name, tensor in into.items():
        stored.fill(name, tensor, held.get(name))


def _parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    """What this rank holds of each."""
    return {name: local(parameter) for name, parameter in model.named_parameters()}


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {f"buffer|{name}": buffer for name, buffer in model.named_buffers()}


def _averages(parts: Parts) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Of the parameters, equal on all ranks; of the buffers, each rank's own as these are."""
    averages = dict(zip(parts.ema.names, parts.ema.shadow, strict=True))
    own = {f"average|{name}": averages.pop(name) for name, _ in parts.model.named_buffers() if name in averages}
    return averages, own
