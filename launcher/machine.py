"""What this machine has, found without torch and without starting a process."""

from __future__ import annotations

import contextlib
import os
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
