"""ECC errors and throttling of one GPU, as far as this node tells: NVML's python binding, or nvidia-smi, or not examined."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from launcher.trust import program

SLOWED = {0x08: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
"""Bits of NVML's clocks event reasons that mean trouble; those of an idle GPU, a power cap and set clocks do not."""
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""The field's name in nvidia-smi since driver 535, and before."""
_SECONDS = 10


def examine(uuid: str) -> dict[str, Any]:
    """`by`: who was asked, empty where nobody could be; `ecc`: uncorrected errors since the last reset, None where it counts none;
    `throttle`: what slows it down now."""
    name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    try:
        return _by_nvml(name)
    except Exception as error:  # no binding, no library, no rights, a part of a GPU
        excuse = f"pynvml: {error}"
    try:
        return _by_smi(name)
    except (OSError, program.TooMuchError, ValueError, LookupError) as error:
        return {"by": "", "ecc": None, "throttle": [], "why": " ".join(f"{excuse}; nvidia-smi: {error}".split())[:300]}


def _by_nvml(uuid: str) -> dict[str, Any]:
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
        try:
            ecc = nvml.nvmlDeviceGetTotalEccErrors(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
        except nvml.NVMLError:
            ecc = None  # consumer GPUs have no ECC
        return {"by": "pynvml", "ecc": ecc, "throttle": slowed_by(reasons(handle))}
    finally:
        nvml.nvmlShutdown()


def _by_smi(uuid: str) -> dict[str, Any]:
    said = ""
    for field in _REASONS:
        query = f"--query-gpu=ecc.errors.uncorrected.volatile.total,{field}"
        done = program.hear(["nvidia-smi", f"--id={uuid}", query, "--format=csv,noheader,nounits"], _SECONDS)
        out, err = (raw.decode(errors="replace").strip() for raw in (done.out, done.err))
        if done.status == 0:
            return {"by": "nvidia-smi", **read_smi(out)}
        said = out or err or f"ended with status {done.status}"
    raise ValueError(said)


def read_smi(line: str) -> Mapping[str, Any]:
    """`0, 0x0000000000000001` or `[N/A], 0x…`. Raises ValueError for anything else."""
    errors, _, reasons = line.strip().partition(", ")
    return {"ecc": int(errors) if errors.isdecimal() else None, "throttle": slowed_by(int(reasons, 16))}


def slowed_by(reasons: int) -> list[str]:
    return [name for bit, name in SLOWED.items() if reasons & bit]
