"""Which arithmetic, and why."""

from __future__ import annotations

from pathlib import Path

import torch

from launcher.errors import ConfigError

_ACCELERATE = {"bf16": "bf16", "fp16": "fp16", "fp32": "no"}


def choose(asked: str, device: torch.device) -> tuple[str, str]:
    """`train.precision` -> (bf16 | fp16 | fp32, the reason). Raises ConfigError for bf16 on a GPU that lacks it."""
    best, why = _best(device)
    if asked == "auto":
        return best, why
    if asked == "bf16" and best != "bf16":
        if device.type == "cuda":
            raise ConfigError(f"train.precision=bf16: {why}; type train.precision={best}")
        return asked, f"asked for, though {why}: correct, but slower than fp32"
    return asked, "asked for"


def accelerate_name(precision: str) -> str:
    return _ACCELERATE[precision]


def _best(device: torch.device) -> tuple[str, str]:
    """The fastest arithmetic that the device's matrix units have."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = f"{torch.cuda.get_device_name(device)}, compute capability {major}.{minor},"
        if major >= 8:
            return "bf16", f"{name} has bf16 tensor cores"
        return ("fp16", f"{name} has fp16 tensor cores and no bf16") if major == 7 else ("fp32", f"{name} has no tensor cores")
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return "fp32", "this system does not say what its CPU can do"
    found = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    return ("bf16", f"this CPU has {found[0]}") if found else ("fp32", "this CPU has no bf16 arithmetic")
