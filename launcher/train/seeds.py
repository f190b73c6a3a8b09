"""The seeds of one run: hashed, so that no two shares of any two runs have a stream in common. Were they added, seed 0 on rank 1 would be
seed 1 on rank 0."""

from __future__ import annotations

import hashlib

from launcher.plan import Coordinate


def of_coordinate(seed: int, coordinate: Coordinate, step: int = 0) -> int:
    """Whole, from 0 to 2**63 - 1: another for each share of a batch and part of a sequence, but the same for the parts of a layer, which
    drop the same outputs, and for stages, whose tasks draw the same (strategies/draws.py has what is drawn within). `step`: where the
    process joined a run that had begun without it; what it drew earlier, if it was there before, is not drawn again."""
    within = f", cp {coordinate.cp}" if coordinate.cp else ""
    return _hashed(f"seed {seed}, rank {coordinate.dp_rank}{within}, from step {step}")


def of_weights(seed: int) -> int:
    """The same on every rank. torch's generator on a CPU takes the lower 32 bits of a seed and no more: greater ones are hashed too."""
    return seed if seed < 2**32 else _hashed(f"seed {seed}, weights")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"launcher, {text}".encode()).digest()[:8], "little") >> 1
