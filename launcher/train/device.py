"""The device of a process: all that is asked of torch about one, but for what data and strategies ask it themselves, in the same words.

torch.accelerator asks the one kind that this build of torch has beside the CPU. Where it has no word for something, the module of the kind
has: streams whose events let a host sleep, names, generators, a driver that is told of memory.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import socket
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from launcher import devices
from launcher.errors import ConfigError

Stream = torch.Stream
Event = torch.Event
"""Of whichever kind: those of a kind are subclasses."""

_PORTABLE = 1
"""cudaHostRegisterPortable: pinned for whatever device a process uses."""


def take(kind: str, index: int, trusted: Sequence[str] = ()) -> torch.device:
    """Be the process that computes on that one of its node. Raises ConfigError where torch sees none for it, or one that is not trusted."""
    taken = torch.device(kind) if kind == devices.CPU else _seen(kind, index)
    if trusted and (why := devices.refusal(name(taken), uuid(taken), uuids_beside(taken), trusted)):
        raise ConfigError(f"device {index} of {socket.gethostname()}: {why}")
    return taken


def _seen(kind: str, index: int) -> torch.device:
    found = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count() if found is not None and found.type == kind else 0
    if count <= index:
        raise ConfigError(
            f"cluster.device={kind}: torch {torch.__version__} sees {devices.counted(kind, count)} on this node and local rank {index} "
            f"needs one; install {devices.KINDS[kind].build} of torch, or type cluster.device=cpu"
        )
    torch.accelerator.set_device_index(index)
    return torch.device(kind, index)


def is_host(device: torch.device) -> bool:
    """Whether it is the CPU: what it computes is done when a call returns, and its memory is the host's."""
    return device.type == devices.CPU


def has_cublas(device: torch.device) -> bool:
    return devices.has_cublas(device.type)


def module(device: torch.device) -> Any:
    """What torch has of that kind alone, as torch.get_device_module gives it; None of one that computes nothing (meta)."""
    return getattr(torch, device.type, None)


# ---------------------------------------------------------------- what it is


def name(device: torch.device) -> str:
    """As its maker calls it."""
    if is_host(device):
        return _cpu_name()
    ask = getattr(module(device), "get_device_name", None)
    return f"{platform.machine()} by {device.type}" if ask is None else ask(device)


def uuid(device: torch.device) -> str:
    """GPU-…, as programs write it; empty where it has none, or nobody tells."""
    found = str(getattr(properties(device), "uuid", "") or "")
    return found if not found or found.startswith(("GPU-", "MIG-")) else f"GPU-{found}"


def uuids_beside(device: torch.device) -> list[str]:
    """Of what else this process sees."""
    if is_host(device):
        return []
    return [uuid(torch.device(device.type, index)) for index in range(torch.accelerator.device_count()) if index != device.index]


def properties(device: torch.device) -> Any:
    """None where its kind has no such record."""
    ask = None if is_host(device) else getattr(module(device), "get_device_properties", None)
    return None if ask is None else ask(device)


def compute_capability(device: torch.device) -> tuple[int, int]:
    """Of NVIDIA's, and of AMD's by their own count."""
    return module(device).get_device_capability(device)


@functools.cache
def has_float64(device: torch.device) -> bool:
    """Apple's have no such numbers, nor Intel's but those for data centres."""
    return device.type != devices.MPS and bool(getattr(properties(device), "has_fp64", True))


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """In float64: on the host, which waits for the device, where that has no such numbers."""
    return tensor.double() if has_float64(tensor.device) else tensor.cpu().double()


def widest(device: torch.device) -> torch.dtype:
    """Of the types that sums are made in and stay on the device."""
    return torch.float64 if has_float64(device) else torch.float32


def place_of_sums(device: torch.device) -> torch.device:
    """Where totals in float64 lie."""
    return device if has_float64(device) else torch.device(devices.CPU)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def sum_exactly() -> None:
    """Partial sums of products in bfloat16 are not rounded to it."""
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


# ---------------------------------------------------------------- its queues


def has_streams(device: torch.device) -> bool:
    """Whether what it is told goes into queues that can be told apart. Apple's has one, whose events wait for all of it."""
    return not is_host(device) and hasattr(module(device), "Stream")


def stream(device: torch.device) -> Any:
    return module(device).Stream(device)


def current_stream(device: torch.device) -> Any:
    return module(device).current_stream(device)


def on(device: torch.device, queue: Any) -> contextlib.AbstractContextManager[Any]:
    """What is told within goes into `queue`; None: into the current one."""
    return contextlib.nullcontext() if queue is None else module(device).stream(queue)


def event(device: torch.device, *, timed: bool = False) -> Any:
    """Who waits for it sleeps, where the kind has such; else it spins, and a core that training needs is counted as the save's."""
    if has_cublas(device):
        return module(device).Event(enable_timing=timed, blocking=True)
    return module(device).Event(enable_timing=timed)


def use(device: torch.device) -> None:
    """In this thread: one begins with device 0, on every rank."""
    torch.accelerator.set_device_index(device.index or 0)


def wait(device: torch.device) -> None:
    """Until it has done all that it was told."""
    if not is_host(device):
        torch.accelerator.synchronize(device)


# ---------------------------------------------------------------- its memory, power and generator


def peak_bytes(device: torch.device) -> int | None:
    """The most that this process has had of its memory; None where nobody counts, or it is the host's."""
    ask = None if is_host(device) else getattr(module(device), "max_memory_allocated", None)
    return None if ask is None else ask(device)


def watts(device: torch.device) -> float | None:
    """What it takes now, as its driver has it; None where nobody reads it (NVIDIA's needs the package nvidia-ml-py)."""
    ask = None if is_host(device) else getattr(module(device), "power_draw", None)
    try:
        return None if ask is None else ask(device) / 1000
    except Exception:  # whatever the package of a driver raises: it is not readable
        return None


def memory(device: torch.device) -> tuple[int, int]:
    """(free, all) bytes. Apple's is the machine's, of which some is recommended."""
    of_kind = module(device)
    if hasattr(of_kind, "mem_get_info"):
        return of_kind.mem_get_info(device)
    total = of_kind.recommended_max_memory()
    return max(0, total - of_kind.driver_allocated_memory()), total


def pinned(size: int, device: torch.device) -> torch.Tensor:
    """That many bytes of the host which that device copies to by itself; plain memory where it cannot.

    What torch pins by itself is rounded up to a power of two, which may be twice as much; so plain memory is made known to the driver, as
    torch does for what processes share (torch/cuda/_pin_memory_utils.py).
    """
    if not size or not has_streams(device):
        return torch.empty(size, dtype=torch.uint8)
    if not has_cublas(device):
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    slab, runtime = torch.empty(size, dtype=torch.uint8), module(device).cudart()
    if int(runtime.cudaHostRegister(slab.data_ptr(), size, _PORTABLE)):
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    weakref.finalize(slab, runtime.cudaHostUnregister, slab.data_ptr()).atexit = False
    return slab


def drawn(device: torch.device) -> torch.Tensor | None:
    """The state of its generator; None for the CPU's, which torch.get_rng_state has."""
    return None if is_host(device) else module(device).get_rng_state(device)


def set_drawn(state: torch.Tensor, device: torch.device) -> None:
    module(device).set_rng_state(state, device)
