"""How much is trained on in a second: what a task counts (tokens), and the share of what the devices can do at most that it takes.

That share is model FLOPs utilization (MFU; Chowdhery et al., 2022, https://arxiv.org/abs/2204.02311, appendix B): what the model's forward
and backward pass need, over the devices' peak. What is computed a second time (train.activation_checkpointing) is no part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from launcher.strategies.protocol import Piece


@dataclass
class Throughput:
    """Asked where a line is logged, and at the end; a step knows nothing of it."""

    unit: str = ""
    """What a task's weight counts, in the plural; empty: samples, of which there is a rate already."""
    flops: Callable[[int], float] = lambda length: 0.0
    """For one of them in a forward and a backward pass, where a sample has that many."""
    peak: float | None = None
    """Operations a second of all devices together; None: not known."""
    _per_sample: float = 0.0

    def note(self, counted: float, samples: float) -> None:
        """Of all ranks, since the last line."""
        self._per_sample = counted / samples if samples else 0.0

    def at(self, samples_per_second: float) -> dict[str, float]:
        """By name: `<unit>_per_second` over all devices, and `mfu`, from 0 to 1, where the peak is known. Empty before a line was noted."""
        if not self.unit or not self._per_sample:
            return {}
        rate = samples_per_second * self._per_sample
        if self.peak is None:
            return {f"{self.unit}_per_second": rate}
        return {f"{self.unit}_per_second": rate, "mfu": rate * self.flops(round(self._per_sample)) / self.peak}


def flops_of(model: Any, pieces: Mapping[str, Piece]) -> Callable[[int], float]:
    """What the model says (`flops_per_token(length)`); else 6 for each parameter: a product and a sum in the forward pass, twice that in
    the backward pass. Of a model that is split, all of it counts."""
    said: Callable[[int], float] | None = getattr(model, "flops_per_token", None)
    whole = 6.0 * sum(prod(piece.shape) for piece in pieces.values())
    return said or (lambda length: whole)
