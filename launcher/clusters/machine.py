"""What this machine has, found without torch and without starting a process."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import socket
import sys
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
    """OMP_NUM_THREADS as this shell has it, else MKL_NUM_THREADS, which torch reads too; 0 where none says anything that can be counted.

    Of a list, which is for nested loops, the first; what does not count is told, once.
    """
    asked = {name: text for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if (text := os.environ.get(name, "").strip())}
    counted = 0
    for name, text in asked.items():
        first, _, more = text.partition(",")
        number = int(first) if re.fullmatch(r"0*[1-9][0-9]{0,3}", first.strip(), re.ASCII) else 0
        if not number:
            _warn(f"{name}={text} is no number of threads and does not count; type one from 1 to 9999")
        elif counted and number != counted:
            _warn(f"{name}={text} does not count beside OMP_NUM_THREADS={asked['OMP_NUM_THREADS']}; unset one of them")
        elif not counted:
            counted = number
            if more:
                _warn(f"of {name}={text} the first counts: {number} threads, and no nested ones")
    return counted


def interfaces() -> tuple[str, ...]:
    try:
        return tuple(name for _, name in socket.if_nameindex())
    except OSError:
        return ()


def tell_of_interfaces(chosen: str | None) -> None:
    """Once, what this shell exports for many nodes and does not count on one. What the config says does: it is meant for this run."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        text = os.environ.get(name, "").strip()
        if (plain := text.lstrip("=")) and plain != chosen and not plain.startswith("lo"):
            means = (
                f"cluster.interface={chosen} says" if chosen else "the processes of one machine talk by loopback, which nobody else reaches"
            )
            _warn(f"{name}={text} does not count: {means}; for another: cluster.interface={plain}")


@functools.cache
def _warn(text: str) -> None:
    print(f"launcher: warning: {text}", file=sys.stderr)


def open_files() -> int:
    """How many files a process started here may have open, the soft limit raised to the hard one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # macOS calls its own limit unlimited and takes no such number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
