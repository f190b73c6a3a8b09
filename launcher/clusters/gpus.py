"""How many GPUs a process started here would see, told from files: torch would take a second to say it. NVIDIA's and AMD's, which torch
has one word for; intel.py has Intel's."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")


@dataclass(frozen=True)
class Gpus:
    count: int
    """As far as it can be told. 0 where there is none, or none is to be seen."""
    sure: bool = True
    """False where there is a sign of a GPU and no list: then a number that was typed is believed."""


def find(environment: Mapping[str, str] = os.environ, root: Path | None = None) -> Gpus:
    """NVIDIA's first, then AMD's, then what only shows that it is there: WSL2's paravirtual device and Jetson's."""
    root = root or ROOT
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if installed := _nvidia(root):
        return Gpus(_nvidia_shows(visible, installed, _uuids(root)))
    if installed := _amd(root):
        return Gpus(_rocm_shows(environment, installed))
    if not _any(root, "dev/dxg", "dev/nvhost-gpu", "dev/nvgpu"):
        return Gpus(0)
    if visible is not None:
        count = _nvidia_shows(visible, 1_000)
        return Gpus(count, sure=count == 0)
    # Every WSL2 has the device; only with NVIDIA's driver for Windows is there its library.
    signs = ("dev/nvhost-gpu", "dev/nvgpu", "usr/lib/wsl/lib/libcuda.so*", "usr/lib/wsl/drivers/nv*/libcuda.so*")
    return Gpus(int(_any(root, *signs)), sure=False)


def _any(root: Path, *patterns: str) -> bool:
    return any(True for pattern in patterns for _ in root.glob(pattern))


def _nvidia(root: Path) -> int:
    try:
        return len(list((root / "proc/driver/nvidia/gpus").iterdir()))
    except OSError:  # some containers hide /proc/driver and show the device files only
        return sum(bool(re.fullmatch(r"nvidia\d+", device.name)) for device in root.glob("dev/nvidia*"))


def _uuids(root: Path) -> list[str]:
    """Of all of them, in small letters; empty where the driver does not say all (it shows question marks until a device is used)."""
    found: list[str] = []
    for information in root.glob("proc/driver/nvidia/gpus/*/information"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            uuid = re.search(r"^GPU UUID:\s*(GPU-[0-9a-f-]+)\s*$", information.read_text(), re.MULTILINE | re.IGNORECASE)
            found += [uuid[1].lower()] if uuid else []
    return found if len(found) == _nvidia(root) else []


def _amd(root: Path) -> int:
    """Nodes of the kernel's topology that compute: a CPU is a node too, without SIMD units. Another container's cannot be read."""
    if not (root / "dev/kfd").exists():
        return 0
    found = 0
    for properties in root.glob("sys/class/kfd/kfd/topology/nodes/*/properties"):
        try:
            units = re.search(r"^simd_count\s+(\d+)", properties.read_text(), re.MULTILINE)
        except OSError:
            continue
        found += bool(units and int(units[1]))
    return found


def _nvidia_shows(visible: str | None, installed: int, uuids: Sequence[str] = ()) -> int:
    """What `CUDA_VISIBLE_DEVICES` leaves, as CUDA reads it: a UUID may be cut short as long as one device alone begins so."""
    shown: list[str] = []
    for name in _shown(visible, installed):
        own = name.lower()
        found = [uuid for uuid in uuids if uuid.startswith(own)] if own.startswith("gpu-") else []
        if uuids and own.startswith("gpu-") and len(found) != 1:
            break  # there is none, or more than one
        shown.append(found[0] if found else own)
    twice = (one != other and one.startswith("gpu-") and other.startswith(one) for one in shown for other in shown)
    if len(set(shown)) < len(shown) or any(twice):
        return 0  # the same device twice: CUDA shows none
    if shown and shown[0].startswith("mig-"):
        return min(installed, 1)  # a process sees one part of a GPU, whatever else is listed
    return len(shown)


def _rocm_shows(environment: Mapping[str, str], installed: int) -> int:
    """ROCm's own list first; HIP's counts within what that leaves, and goes by CUDA's name as well."""
    left = len(dict.fromkeys(_shown(environment.get("ROCR_VISIBLE_DEVICES"), installed)))
    of_hip = environment.get("HIP_VISIBLE_DEVICES", environment.get("CUDA_VISIBLE_DEVICES"))
    return len(dict.fromkeys(_shown(of_hip, left)))


def _shown(visible: str | None, installed: int) -> list[str]:
    """The entries up to the first that does not exist; what is behind it is ignored."""
    if visible is None:
        return [str(number) for number in range(installed)]
    shown: list[str] = []
    for device in visible.split(","):
        name = device.strip()
        if not name or name == "-1" or (name.isdigit() and int(name) >= installed):
            break
        shown.append(str(int(name)) if name.isdigit() else name)
    return shown
