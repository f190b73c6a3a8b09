"""What this machine has, found without torch and without starting a process."""

from __future__ import annotations

import contextlib
import os
import re
import resource
from pathlib import Path


def cpu_count() -> int:
    """CPUs this process may use: its affinity, cut by a cgroup v2 quota where there is one (containers)."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return count if quota == "max" else max(1, min(count, int(quota) // int(period)))
    except (OSError, ValueError):
        return count


def gpu_count() -> int:
    """CUDA devices that a process started here would see; `CUDA_VISIBLE_DEVICES` is honoured as CUDA does."""
    installed = _installed_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return installed
    shown: list[str] = []
    for device in visible.split(","):
        name = device.strip()
        if not name or name == "-1" or (name.isdigit() and int(name) >= installed):
            break  # CUDA ignores everything behind the first entry that does not exist
        shown.append(name)
    if len(set(shown)) < len(shown):
        return 0  # the same device twice: CUDA shows none
    if shown and shown[0].startswith("MIG-"):
        return min(installed, 1)  # a process sees one part of a GPU, whatever else is listed
    return len(shown) if installed else 0


def _installed_gpus() -> int:
    try:
        return len(list(Path("/proc/driver/nvidia/gpus").iterdir()))
    except OSError:  # some containers hide /proc/driver and show the device files only
        return sum(bool(re.fullmatch(r"nvidia\d+", device.name)) for device in Path("/dev").glob("nvidia*"))


def threads_asked() -> int:
    """OMP_NUM_THREADS as this shell has it, 0 where it says nothing that can be counted: it may be a list, for nested loops."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and len(first) < 5 else 0


def open_files() -> int:
    """How many files a process started here may have open, the soft limit raised to the hard one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS calls its own limit unlimited and takes no such number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def gpus_here() -> str:
    """One phrase for a message."""
    count = gpu_count()
    return "no CUDA device" if count == 0 else f"{count} CUDA device{'s' * (count > 1)}"
