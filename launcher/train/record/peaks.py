"""What a device can do at most: dense products on its matrix units, in 10^12 floating-point operations a second, as its maker publishes it.

Makers print figures with structured sparsity first, which are twice these. A device that is not here has no peak: a guess would be a number
that looks like a measurement. Sources: NVIDIA's data sheets of V100, T4, A100, A30, A10, A40, L4, L40, L40S, H100, H200, H20 and GH200
(https://www.nvidia.com/en-us/data-center/), its Blackwell data sheet for B200 and GB200, the architecture papers of GA102 and Ada
(appendix A; products summed in float32) for the RTX, AMD's of MI250X, by its half, and MI300X (https://www.amd.com/en/products/accelerators/instinct.html).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch

from launcher.train.device import is_host
from launcher.train.device import name as name_of


class Peak(NamedTuple):
    """None: it has no such unit."""

    bf16: float | None
    fp16: float | None
    tf32: float | None
    fp32: float


def _ampere(half: float, fp32: float) -> Peak:
    """And what came after: bf16 as fp16, TF32 half of them."""
    return Peak(half, half, half / 2, fp32)


PEAKS: dict[str, Peak] = {
    r"Tesla V100-SXM[23]-\d+GB(-LS)?": Peak(None, 125.0, None, 15.7),
    r"Tesla V100-PCIE-\d+GB": Peak(None, 112.0, None, 14.0),
    r"Tesla V100S-PCIE-32GB": Peak(None, 130.0, None, 16.4),
    r"Tesla T4": Peak(None, 65.0, None, 8.1),
    r"NVIDIA A[18]00([- ](SXM4|PCIe|PCIE))?[- ]\d+GB( PCIe)?": _ampere(312.0, 19.5),
    r"NVIDIA A30": _ampere(165.0, 10.3),
    r"NVIDIA A10": _ampere(125.0, 31.2),
    r"NVIDIA A40": _ampere(149.7, 37.4),
    r"NVIDIA RTX A6000": _ampere(154.8, 38.7),
    r"NVIDIA GeForce RTX 3090": Peak(71.0, 71.0, 35.6, 35.6),
    r"NVIDIA L4": _ampere(121.0, 30.3),
    r"NVIDIA L40": _ampere(181.0, 90.5),
    r"NVIDIA L40S": _ampere(362.0, 91.6),
    r"NVIDIA GeForce RTX 4090": _ampere(165.2, 82.6),
    r"NVIDIA H100 80GB HBM3": _ampere(989.4, 66.9),
    r"NVIDIA H100 PCIe": _ampere(756.0, 51.0),
    r"NVIDIA H100 NVL": _ampere(835.5, 60.0),
    r"NVIDIA H200": _ampere(989.4, 66.9),
    r"NVIDIA H200 NVL": _ampere(835.5, 60.0),
    r"NVIDIA H20": _ampere(148.0, 44.0),
    r"NVIDIA GH200 \d+GB( HBM3e?)?": _ampere(989.4, 66.9),
    r"NVIDIA B200": _ampere(2250.0, 75.0),
    r"NVIDIA GB200": _ampere(2500.0, 80.0),
    r"AMD Instinct MI250X": Peak(191.5, 191.5, None, 47.9),
    r"AMD Instinct MI300X": Peak(1307.4, 1307.4, 653.7, 163.4),
}
"""By a pattern of all of a name, as torch has it: a part of a device (MIG) or a laptop's is another."""


def named(name: str, arithmetic: str) -> float | None:
    """Of the device of that name, operations a second; `arithmetic`: bf16 | fp16 | tf32 | fp32. None where it is not known."""
    for pattern, peak in PEAKS.items():
        if re.fullmatch(pattern, name):
            found = getattr(peak, arithmetic)
            return None if found is None else found * 1e12
    return None


def of(device: torch.device, precision: str, deterministic: bool) -> float | None:
    """Of a device, as a run of that precision computes on it: float32 products take TF32 unless it is deterministic (arithmetic.py). None
    for a CPU, and for what is not known."""
    if is_host(device):
        return None
    name = name_of(device)
    if precision != "fp32":
        return named(name, precision)
    return named(name, "fp32") if deterministic else named(name, "tf32") or named(name, "fp32")
