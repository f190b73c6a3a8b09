"""Activations that are made again in the backward pass and take no memory until then (Chen et al., 2016, https://arxiv.org/abs/1604.06174)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from launcher.config.config import TrainConfig
from launcher.errors import ConfigError

BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops._c10d_functional.reduce_scatter_tensor.default,
)
"""What costs most to make again: products, attention, and what has crossed the network."""


def spare(model: nn.Module, blocks: Sequence[str], how: str) -> None:
    """Have each block of those classes keep what comes in and no more (full), or the results of products and attention too (selective).

    The numbers stay what they are, dropout's too. A block within a block is left to the outer one. Raises ConfigError for a block with
    BatchNorm, which would take each batch into its statistics twice.
    """
    if how == "none":
        return
    context = {"context_fn": functools.partial(create_selective_checkpoint_contexts, _policy)} if how == "selective" else {}
    inside: set[int] = set()
    for module in model.modules():  # outer ones first
        if type(module).__name__ in blocks and id(module) not in inside:
            if any(isinstance(each, BATCH_NORM) and each.track_running_stats for each in module.modules()):
                raise ConfigError(
                    f"train.activation_checkpointing={how}: a {type(module).__name__} has BatchNorm, whose statistics would count each "
                    "batch twice; type train.activation_checkpointing=none, or take a model with another norm"
                )
            inside.update(map(id, module.modules()))
            module.forward = functools.partial(checkpoint, module.forward, use_reentrant=False, **context)


def smaller_batch(model: nn.Module, train: TrainConfig, dp_size: int) -> str:
    """What to warn of where BatchNorm sees less than a batch at once; empty where it does not, or there is none."""
    shares = train.accumulate * dp_size
    if shares == 1 or not any(isinstance(each, BATCH_NORM) and each.track_running_stats for each in model.modules()):
        return ""
    return (
        f"the model has BatchNorm, whose statistics are now of {train.batch_size // shares} samples, those of one micro-batch of one "
        f"process, and not of the {train.batch_size} of a batch: numbers differ from those of one process; with a norm of each sample they "
        "do not (model.groups=8 of our ResNets)"
    )


def _policy(context: Any, operation: Any, *args: Any, **named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
