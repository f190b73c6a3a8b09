"""What a process computes in, set on purpose: autocast around the model, the gradient scaler of fp16, what a GPU may do for speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from launcher.errors import ConfigError
from launcher.train.device import has_cublas
from launcher.train.local import device_of

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Autocast:
    """Calls a model in a lower precision and returns its floating-point outputs as float32: losses are summed in that.

    One context for all calls, and a look at what comes out; Accelerate patches the model's `forward` and walks through its outputs.
    """

    def __init__(self, model: Callable[..., Any], device: torch.device, dtype: torch.dtype) -> None:
        self._model = model
        self._context = torch.autocast(device.type, dtype)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        with self._context:
            outputs = self._model(*inputs, **named)
        return outputs.float() if isinstance(outputs, torch.Tensor) and outputs.is_floating_point() else pytree.tree_map(_float32, outputs)


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def computing(model: Callable[..., Any], device: torch.device, precision: str) -> Callable[..., Any]:
    """What a task calls in the model's place: itself in fp32."""
    return Autocast(model, device, _DTYPES[precision]) if precision in _DTYPES else model


def scaler(device: torch.device, precision: str, parameters: Sequence[torch.Tensor] = ()) -> torch.amp.GradScaler | None:
    """Gradients of fp16 are scaled, or small ones would be zero. Raises ConfigError where the gradients of `parameters` are not on the
    device, on which alone it looks at them."""
    if precision == "fp16" and device_of(parameters, device).type != device.type:
        raise ConfigError(
            "strategy.cpu_offload=true: the fastest that this GPU has is fp16, whose gradient scaler looks at gradients on the GPU; "
            "type train.precision=fp32"
        )
    if precision != "fp16":
        return None
    made = torch.amp.GradScaler(device.type)
    made.scale(torch.zeros((), device=device))  # makes its scale, for a stage that has no loss to scale
    return made


def set_speed(device: torch.device, deterministic: bool) -> str:
    """Whether convolutions are tried out and float32 products take TF32 (10 bits of 23), for a GPU. Returns what to say in the log."""
    if deterministic:
        torch.use_deterministic_algorithms(True)
    if not has_cublas(device):
        return ""
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic
    torch.set_float32_matmul_precision("highest" if deterministic else "high")
    on = "off (train.deterministic)" if deterministic else "on"
    return f"cudnn.benchmark and TF32 {on}"
