"""What the optimizers of a run remember, by the names of their parameters: for a checkpoint, and back.

Tensors are called <parameter>|<key>, and those that lie deeper <parameter>|<key>/<place>/…; the rest is JSON of three parts:

    kinds    the class of each optimizer
    groups   of each parameter group of all of them its settings but `lr`, which is a function of the step
    values   <parameter>|<key>: what is no tensor, and where the tensors within it were (nested.py)

A parameter is in one optimizer alone, so its name says whose the state is. What an optimizer keeps under a text of its own is called
.<number of the optimizer>|<text>: no name of a parameter begins with a dot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from launcher.errors import CheckpointError
from launcher.train.checkpoint import nested
from launcher.train.local import local
from launcher.train.optimizers import Optimizers

_HOW = ("fused", "foreach")
"""Settings of a group that say by which kernels it computes: of where a run is, and not of the run."""


def tensors_of(optimizers: Optimizers) -> list[torch.Tensor]:
    """In the same order on every rank."""
    return [local(tensor) for state in _states(optimizers).values() for tensor in nested.tensors_in(state)]


def unfold(optimizers: Optimizers) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What this rank holds of each tensor by name, and JSON. Raises CheckpointError for a state that neither can hold."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for owner, state in _states(optimizers).items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor) and not owner.startswith("."):
                tensors[f"{owner}|{key}"] = local(value)
            else:  # who asks for a parameter's state knows its name; of the rest JSON says what there is
                values[f"{owner}|{key}"] = nested.unfold(f"{owner}|{key}", value, tensors)
    groups = [
        {key: nested.unfold(f".groups|{number}/{key}", value, tensors) for key, value in group.items() if key not in ("params", "lr")}
        for number, group in enumerate(optimizers.param_groups)
    ]
    return tensors, {"kinds": _kinds(optimizers), "values": values, "groups": groups}


def fold(optimizers: Optimizers, tensors: Mapping[str, torch.Tensor], rest: dict[str, Any]) -> None:
    """Load what `unfold` gave, of an older launcher too. Raises CheckpointError where it is of other optimizers or another model. Each of
    `tensors` is asked for once, when there is a place for it, and may be taken over: those that are read then are not all held twice."""
    kinds = rest.get("kinds", _kinds(optimizers))
    if kinds != _kinds(optimizers):
        ours = " and ".join(_kinds(optimizers))
        raise CheckpointError(f"the checkpoint is of another optimizer: it has {' and '.join(map(str, kinds))}, and this run {ours}")
    if len(rest["groups"]) != len(optimizers.param_groups):
        raise CheckpointError("the checkpoint is of another optimizer: it has other parameter groups")
    settings = [_settings(group, tensors, "kinds" in rest) for group in rest["groups"]]
    states = _owners(tensors, rest)
    for number, one in enumerate(optimizers.each):
        groups = one.state_dict()["param_groups"]
        for group in groups:
            group.update({key: value for key, value in settings.pop(0).items() if key not in _HOW})
        one.load_state_dict({"state": {}, "param_groups": groups})
        for key, value in states.pop(f".{number}", {}).items():
            one.state[key] = nested.fold(value, tensors.__getitem__)  # pyright: ignore[reportArgumentType]  # a text of the optimizer's own
        for group in one.param_groups:
            for parameter in group["params"]:
                for key, value in states.pop(optimizers.names[id(parameter)], {}).items():
                    one.state[parameter][key] = nested.fold(value, _placing(tensors, key, parameter, group))
    if states:
        raise CheckpointError(f"the checkpoint is of another model: its optimizer has {next(iter(states))}")
    optimizers.bind()


def _owners(names: Iterable[str], rest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Owner -> key -> where that state is, as JSON has it of what is nested."""
    within = {name for group in rest["groups"] for value in group.values() for name in nested.names_in(value)}
    within |= {name for value in rest["values"].values() for name in nested.names_in(value)}
    plain = {name: {nested.TENSOR: name} for name in names if name not in within}
    states: dict[str, dict[str, Any]] = {}
    for name, value in {**plain, **rest["values"]}.items():
        owner, _, key = name.partition("|") if name.startswith(".") else name.rpartition("|")
        states.setdefault(owner, {})[key] = value
    return states


def _settings(group: dict[str, Any], tensors: Mapping[str, torch.Tensor], tells_tuples: bool) -> dict[str, Any]:
    """Of a parameter group. An older launcher wrote a tuple as the list that it is in JSON, and no list is a setting of torch's."""
    values = {key: nested.fold(value, tensors.__getitem__) for key, value in group.items() if key != "lr"}
    return values if tells_tuples else {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _placing(
    tensors: Mapping[str, torch.Tensor], key: str, parameter: torch.Tensor, group: dict[str, Any]
) -> Callable[[str], torch.Tensor]:
    """Gives a tensor of a state where its parameter is, in the type that it had, and those of its shape with its strides. torch's own
    loading casts to the parameter's type, and makes nonsense of a text."""
    on_host = key == "step" and not (group.get("fused") or group.get("capturable"))
    return tensors.__getitem__ if on_host else lambda name: _strided_like(parameter, tensors[name])


def _kinds(optimizers: Optimizers) -> list[str]:
    return [type(one).__name__ for one in optimizers.each]


def _states(optimizers: Optimizers) -> dict[str, dict[str, Any]]:
    """Owner -> its state, in the order of the parameters, as it lies there. Raises CheckpointError for an owner without a name."""
    states: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(optimizers.each):
        for key, state in one.state.items():
            if isinstance(key, str):
                states.setdefault(f".{number}", {})[key] = state
            elif id(key) not in optimizers.names:
                kind = type(one).__name__
                raise CheckpointError(
                    f"{kind} keeps state under a {type(key).__name__}: a checkpoint holds that of parameters, or under a text"
                )
        for parameter in (parameter for group in one.param_groups for parameter in group["params"]):
            if parameter in one.state:
                states[optimizers.names[id(parameter)]] = one.state[parameter]
    return states


def _strided_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The fused kernels pair elements by address: a contiguous momentum beside a channels-last filter would be applied to the wrong
    weights, in silence."""
    if value.shape != local(parameter).shape:
        return value.to(parameter.device)
    if local(parameter) is parameter and parameter.is_contiguous() and value.is_contiguous() and value.device == parameter.device:
        return value
    placed = torch.empty_like(parameter, dtype=value.dtype)
    local(placed).copy_(value)
    return placed
