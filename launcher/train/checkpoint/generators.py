"""The states of all random generators of a process, and back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from launcher.train.device import drawn, is_host, set_drawn


def on_device(device: torch.device) -> dict[str, torch.Tensor]:
    """torch's, as tensors."""
    states = {"generator|cpu": torch.get_rng_state()}
    own = drawn(device)
    return states if own is None else {**states, f"generator|{device.type}": own}


def on_host() -> dict[str, Any]:
    """Python's and NumPy's, for JSON."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
    }


def restore(host: dict[str, Any], tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(tensors["generator|cpu"])
    if not is_host(device):
        set_drawn(tensors[f"generator|{device.type}"], device)
    version, numbers, gauss = host["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = host["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
