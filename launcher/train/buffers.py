"""Buffers averaged over the ranks: each keeps statistics of what it saw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from launcher.train.world.ranks import Ranks


@contextlib.contextmanager
def averaged_buffers(model: nn.Module, peers: Ranks) -> Iterator[None]:
    """Mean of every floating-point buffer over `peers`, the ranks with the same part of the model, for as long as the context lasts.

    BatchNorm keeps statistics of what its own rank saw; a model is evaluated with those of all.
    """
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if peers.size == 1 or not buffers:
        yield
        return
    own = [buffer.clone() for buffer in buffers]
    flat = torch.cat([buffer.detach().flatten().cpu().double() for buffer in buffers])
    mean = (peers.sum(flat) / peers.size).split([buffer.numel() for buffer in buffers])
    try:
        for buffer, value in zip(buffers, mean, strict=True):
            buffer.copy_(value.view_as(buffer))
        yield
    finally:
        for buffer, value in zip(buffers, own, strict=True):
            buffer.copy_(value)
