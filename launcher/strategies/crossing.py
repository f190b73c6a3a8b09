"""What processes send each other of tensors: what one looks like goes before it, as numbers and no pickle."""

# pyright: standard
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from launcher.errors import ConfigError

_HEADER = 16
"""Numbers that say what a tensor looks like: its type, how many dimensions, and each."""
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
_BUCKET = 25 << 20
"""Bytes of gradients that are averaged together, as DDP has it."""


def send(tensor: torch.Tensor, to: int, group: Any, device: torch.device) -> None:
    """To that rank, which calls `receive`."""
    header = torch.zeros(_HEADER, dtype=torch.int64)
    header[: 2 + tensor.ndim] = torch.tensor([_DTYPES.index(tensor.dtype), tensor.ndim, *tensor.shape])
    dist.send(header.to(device), to, group=group)
    dist.send(tensor, to, group=group)


def receive(source: int, group: Any, device: torch.device) -> torch.Tensor:
    header = torch.zeros(_HEADER, dtype=torch.int64, device=device)
    dist.recv(header, source, group=group)
    dtype, ndim, *sizes = header.tolist()
    tensor = torch.empty(sizes[:ndim], dtype=_DTYPES[dtype], device=device)
    dist.recv(tensor, source, group=group)
    return tensor


def average(parameters: Sequence[torch.Tensor], group: Any) -> None:
    """Of their gradients over the processes of the group, in buckets."""
    bucket: list[torch.Tensor] = []
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for number, gradient in enumerate(gradients, 1):
        bucket.append(gradient)
        if number == len(gradients) or sum(each.nbytes for each in bucket) >= _BUCKET or gradients[number].dtype != gradient.dtype:
            flat = torch.cat([each.flatten() for each in bucket])
            dist.all_reduce(flat, group=group)
            flat /= dist.get_world_size(group)
            for each, mean in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                each.copy_(mean.view_as(each))
            bucket.clear()


def described(outputs: Any) -> Any:
    """Of tensors in tuples, lists and dicts, for JSON. Raises ConfigError for anything else."""
    if isinstance(outputs, torch.Tensor):
        return {"tensor": list(outputs.shape), "dtype": _DTYPES.index(outputs.dtype)}
    if outputs is None:
        return None
    if type(outputs) is dict:
        return {"dict": [[key, described(value)] for key, value in outputs.items()]}
    if type(outputs) in (list, tuple):
        return {type(outputs).__name__: [described(value) for value in outputs]}
    raise ConfigError(
        f"strategy=pp: the model gives a {type(outputs).__name__}; it has to give tensors, or plain tuples, lists or dicts of them; or "
        "type strategy=fsdp"
    )


def zeros(told: Any, device: torch.device) -> Any:
    if told is None:
        return None
    if "tensor" in told:
        return torch.zeros(told["tensor"], dtype=_DTYPES[told["dtype"]], device=device)
    if "dict" in told:
        return {key: zeros(value, device) for key, value in told["dict"]}
    ((kind, values),) = told.items()
    return [zeros(value, device) for value in values] if kind == "list" else tuple(zeros(value, device) for value in values)
