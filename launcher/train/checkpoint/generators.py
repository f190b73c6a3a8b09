"""The states of all random generators of a process, and back."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def on_device(device: torch.device) -> dict[str, torch.Tensor]:
    """torch's, as tensors."""
    states = {"generator|cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["generator|cuda"] = torch.cuda.get_rng_state(device)
    return states


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
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["generator|cuda"], device)
    version, numbers, gauss = host["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = host["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
