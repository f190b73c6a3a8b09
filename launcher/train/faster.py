"""What makes a model faster and leaves it the same to whoever calls it: memory as devices want it, torch.compile, products in 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from launcher.config.config import TrainConfig
from launcher.errors import ConfigError
from launcher.train.device import compute_capability, has_cublas
from launcher.train.device import name as name_of

CAPABILITY = (8, 9)
"""Of the first GPUs with float8 products (Ada, Hopper)."""
MULTIPLE = 16
"""Of both sizes of a matrix, for float8 products (torch._scaled_mm)."""


def is_channels_last(train: TrainConfig, may_be: bool, optimizer: str) -> bool:
    """Whether 4-d tensors are to lie NHWC. `may_be`: for all that the strategy does; `optimizer`: its class."""
    if train.channels_last == "auto":
        return may_be and not optimizer.lower().endswith(".lbfgs")
    return train.channels_last  # whoever cannot have it so has refused it


def compile_it(model: nn.Module, blocks: Sequence[str], train: TrainConfig) -> None:
    """As `train.compile` says; blocks: the modules of these classes, which share what is compiled for one of them."""
    if train.compile == "blocks":
        for module in [module for module in model.modules() if type(module).__name__ in blocks]:
            module.compile(mode=train.compile_mode, dynamic=train.compile_dynamic)
    elif train.compile:
        model.compile(mode=train.compile_mode, dynamic=train.compile_dynamic)


def in_8_bits(model: nn.Module, device: torch.device, emulate: bool = False) -> nn.Module:
    """The model with torchao's layers in the place of its linear ones, but for the last, whose scores want more (Micikevicius et al., 2022,
    https://arxiv.org/abs/2209.05433, section 4; each tensor scaled by its largest element, as it is computed). `emulate`: computed in more
    bits and rounded, for a device that has no such products. Raises ConfigError where torchao is missing, or the GPU too old."""
    if has_cublas(device) and not emulate and (has := compute_capability(device)) < CAPABILITY:
        raise ConfigError(
            f"train.fp8=true: {name_of(device)} has compute capability {has[0]}.{has[1]}, and products in 8 bits begin "
            "with 8.9; type train.fp8=false"
        )
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise ConfigError(f"train.fp8=true needs torchao ({error}); pip install 'launcher[fp8]', or type train.fp8=false") from error
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]

    def fits(module: Any, name: str) -> bool:
        return isinstance(module, nn.Linear) and name != linear[-1] and not any(size % MULTIPLE for size in module.weight.shape)

    if not any(fits(model.get_submodule(name), name) for name in linear):
        raise ConfigError(
            f"train.fp8=true: the model has no linear layer of multiples of {MULTIPLE}, but for its last; type train.fp8=false"
        )
    return convert_to_float8_training(model, config=Float8LinearConfig(emulate=emulate), module_filter_fn=fits)
