"""The L2 norm of an update's gradient, and clipping by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from launcher.strategies.protocol import Piece
from launcher.train.device import widest
from launcher.train.local import device_of, gradients, summed
from launcher.train.optimizers import Optimizers

NOTHING_SAID: Mapping[str, Piece] = MappingProxyType({})


class Norm:
    """Over all parameters as one vector: the same number on every rank of a replica."""

    def __init__(
        self, optimizers: Optimizers, most: float, pieces: Mapping[str, Piece] = NOTHING_SAID, rank: int = 0, world: int = 1
    ) -> None:
        """`most`: what gradients with a greater norm are scaled down to; 0: they are as they are. `pieces`: what this rank holds of each
        parameter. What several hold is counted once; what all hold needs no message."""
        self.clips = most > 0
        self._most = most or math.inf
        self._parameters = optimizers.parameters
        held = {id(parameter): pieces.get(optimizers.names[id(parameter)]) for parameter in self._parameters}
        self._is_split = any(piece is not None and len(piece.replicas) < world for piece in held.values())
        self._counted = [parameter for parameter in self._parameters if (piece := held[id(parameter)]) and piece.owner == rank]

    def clip(self) -> torch.Tensor:
        """What it was before, a 0-d tensor, on the device yet."""
        if self._is_split:
            return self._clip_pieces()
        if not self.clips:
            return nn.utils.get_total_norm([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        return nn.utils.clip_grad_norm_(self._parameters, self._most)

    @torch.no_grad()
    def _clip_pieces(self) -> torch.Tensor:
        counted = gradients(self._counted)
        where = device_of(self._parameters, self._parameters[0].device)
        square = torch.zeros((), dtype=widest(where), device=where)
        if counted:
            square += torch.stack(torch._foreach_norm(counted)).to(square.dtype).square().sum()  # pyright: ignore[reportPrivateImportUsage]
        norm = summed(square).sqrt().float()
        if self.clips and (here := gradients(self._parameters)):  # a stage may be frozen
            factor = (self._most / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grads_with_norm_ has it
            torch._foreach_mul_(here, factor.to(square.device))  # pyright: ignore[reportPrivateImportUsage]
        return norm
