"""Whether data fit into memory, before it is filled: a machine that swaps is worse than a refusal."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import torch

GIB = 2**30


def check(samples: int, sample_bytes: int, device: torch.device) -> None:
    """Raises ValueError where they do not fit: once per process of this machine into its memory, and on a GPU once into that."""
    needed, processes = samples * sample_bytes, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    rooms = [("this machine", free() / processes)]
    of_kind = torch.get_device_module(device)
    if hasattr(of_kind, "mem_get_info"):
        rooms.append(("the GPU", of_kind.mem_get_info(device)[0]))
    for place, room in rooms:
        if needed > room:
            raise ValueError(
                f"data: {samples:,} samples of {sample_bytes:,} bytes are {needed / GIB:.1f} GiB, and {place} has {room / GIB:.1f} free "
                "for each process; loader=resident holds all of them: give it fewer or smaller samples"
            )


def free() -> float:
    """Bytes that this machine, or the control group we are in, can still give; infinity where nobody says."""
    found = [float("inf")]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError, IndexError):
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()[-1].rpartition(":")[2].strip("/")
        group = Path("/sys/fs/cgroup", own)
        found += [_left(place) for place in (group, *group.parents) if place.is_relative_to("/sys/fs/cgroup")]
    return min(found)


def _left(group: Path) -> float:
    """Of a group's limit, with what is only a cache; infinity where it has none."""
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - used + int(stat["inactive_file"])
    return float("inf")
