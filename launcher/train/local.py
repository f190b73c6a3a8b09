"""What a process holds of a tensor. Where a strategy splits a model, parameters, their gradients and what optimizers keep of them are
DTensors (https://docs.pytorch.org/docs/stable/distributed.tensor.html); what is done element by element is done on the pieces, without the
tens of microseconds that each operation on a DTensor takes to find out the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist

from launcher.devices import HOST_BACKEND


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or this process's piece of it, in the same memory."""
    return getattr(tensor, "_local_tensor", tensor)  # what `to_local` returns under no_grad, without its microseconds


def gradients(parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """This process's pieces of those that are there."""
    return [local(parameter.grad) for parameter in parameters if parameter.grad is not None]


def device_of(parameters: Iterable[torch.Tensor], otherwise: torch.device) -> torch.device:
    """Where they lie; of those that a stage of a pipeline has not, nothing lies anywhere. The host's memory with strategy.cpu_offload."""
    return next((parameter.device for parameter in parameters if parameter.numel()), otherwise)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or all of it where it is a DTensor; differentiable."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def summed(tensor: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
    """Over all ranks, or those of a group; it may be changed. Of what lies in the host's memory (strategy.cpu_offload) the sum is on the
    GPU: NCCL and XCCL add up nothing else."""
    if tensor.is_cpu and dist.get_backend(group) != HOST_BACKEND:
        tensor = tensor.to(torch.accelerator.current_accelerator())
    dist.all_reduce(tensor, group=group)
    return tensor
