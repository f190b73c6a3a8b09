"""What is drawn at random where several processes go through the same code: the same for all, or each its own, and nobody's after it."""

# pyright: standard
from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch


def plant(seed: int) -> None:
    """In every generator there is, a GPU's too. NumPy's takes 32 bits at a time: all of them count."""
    random.seed(seed)
    np.random.seed([seed % 2**32, seed >> 32])
    torch.manual_seed(seed)


@contextmanager
def kept(device: torch.device) -> Generator[None]:
    """Every generator is after this as it was before."""
    own, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numbers)
