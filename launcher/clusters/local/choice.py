"""What the processes of this machine compute on, and why: told without torch, in a millisecond."""

from __future__ import annotations

import platform
from typing import NamedTuple

from launcher import devices
from launcher.clusters import gpus, intel
from launcher.clusters.gpus import Gpus
from launcher.devices import CPU, CUDA, MPS, XPU
from launcher.errors import ConfigError

ASKED = ("auto", CPU, CUDA, XPU, MPS)


class Choice(NamedTuple):
    device: str
    found: Gpus
    """Of that device; none of the CPU."""
    why: str
    """In one line; empty where it was typed."""


def choose(asked: str) -> Choice:
    """`cluster.device`. Raises ConfigError where this machine has no such device."""
    if asked not in ASKED:
        raise ConfigError(f"cluster.device={asked} cannot be; type one of {', '.join(ASKED)}")
    if asked == "auto":
        return _auto()
    if asked == CPU:
        return Choice(asked, Gpus(0), "")
    found = {CUDA: gpus.find, XPU: _intel, MPS: _apple}[asked]()
    if not found.count and found.sure:
        raise ConfigError(f"cluster.device={asked}: this machine shows {devices.counted(asked, 0)}; type cluster.device=cpu or auto")
    return Choice(asked, found, "")


def _auto() -> Choice:
    """A GPU where there is one that torch may be expected to compute on; what is left out is named."""
    found, beside = gpus.find(), intel.find()
    if found.count:
        return _chosen(CUDA, found, f"this machine shows {devices.counted(CUDA, found.count)}")
    if beside.cards and intel.torch_is_for_it():
        return _chosen(XPU, _intel(), f"this machine shows {devices.counted(XPU, beside.cards)}, and torch is built for it")
    if (apple := _apple()).count:
        return _chosen(MPS, apple, "this is a Mac with a processor of Apple's")
    left_out = ""
    if beside.cards:
        left_out = f"; a card of Intel's is here and torch is not built for it by its name (if it is, type cluster.device={XPU})"
    elif beside.inside:
        left_out = f"; the GPU inside the processor is not taken by itself (type cluster.device={XPU} to have it)"
    return _chosen(CPU, Gpus(0), f"this machine shows no GPU to train on{left_out}")


def _chosen(device: str, found: Gpus, why: str) -> Choice:
    return Choice(device, found, f"cluster.device=auto takes {device}: {why}")


def _intel() -> Gpus:
    """Of one that was typed, that of a processor too."""
    found = intel.find()
    return Gpus(found.cards or min(found.inside, 1), sure=not found.cards)


def _apple() -> Gpus:
    return Gpus(int(platform.system() == "Darwin" and platform.machine() == "arm64"))
