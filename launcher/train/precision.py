"""Which arithmetic, and why."""

from __future__ import annotations

from pathlib import Path

import torch

from launcher.errors import ConfigError

_ACCELERATE = {"bf16": "bf16", "fp16": "fp16", "fp32": "no"}


def choose(asked: str, device: torch.device) -> tuple[str, str]:
    """`train.precision` -> (bf16 | fp16 | fp32, the reason). Raises ConfigError for bf16 on a GPU that lacks it."""
    has, why = _has_bf16(device)
    if asked == "auto":
        return ("bf16" if has else "fp32"), why
    if asked == "bf16" and device.type == "cuda" and not has:
        raise ConfigError(f"train.precision=bf16: {why}; type train.precision=fp16")
    if asked == "bf16" and not has:
        return asked, f"asked for, though {why}: correct, but slower than fp32"
    return asked, "asked for"


def accelerate_name(precision: str) -> str:
    return _ACCELERATE[precision]


def _has_bf16(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        name, (major, minor) = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        return major >= 8, f"{name} (compute capability {major}.{minor}) {'has' if major >= 8 else 'lacks'} bf16 tensor cores"
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False, "this system does not say what its CPU can do"
    found = flags & {"avx512_bf16", "amx_bf16", "bf16"}
    return bool(found), f"this CPU has {sorted(found)[0]}" if found else "this CPU has no bf16 arithmetic"
