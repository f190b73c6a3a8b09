"""Intel's GPUs, told from files as gpus.py tells others. Many processors have one inside, which is no reason to train there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from launcher.clusters import gpus

VENDOR = "0x8086"
_INSIDE = re.compile(r"0000:00:[0-9a-f]{2}\.[0-9a-f]")
"""The address of one that is part of the processor: on the first bus. A card lies behind a bridge."""


@dataclass(frozen=True)
class Intel:
    cards: int
    """As far as it can be told: of one that is made of tiles torch may show several devices."""
    inside: int
    """Of processors."""


def find(environment: Mapping[str, str] = os.environ, root: Path | None = None) -> Intel:
    """Those that have a node to compute by, and a driver. `ZE_AFFINITY_MASK`, where it is set, says which a process sees."""
    places = [_place(node) for node in sorted((root or gpus.ROOT).glob("sys/class/drm/renderD*"))]
    found = [place for place in places if place]
    inside = sum(bool(_INSIDE.fullmatch(place)) for place in found)
    cards = len(found) - inside
    if (mask := environment.get("ZE_AFFINITY_MASK")) is not None:
        cards = min(cards, len(set(filter(None, mask.split(",")))))
    return Intel(cards, inside)


def torch_is_for_it() -> bool:
    """By the name of the version that is installed, for looking into it would take seconds."""
    try:
        return metadata.version("torch").endswith("+xpu")
    except metadata.PackageNotFoundError:
        return False


def _place(node: Path) -> str:
    """The address of a GPU of Intel's; empty for another, or one that no driver of the kernel computes on."""
    try:
        vendor = (node / "device" / "vendor").read_text(encoding="ascii").strip()
        driver = (node / "device" / "driver").resolve().name
        return (node / "device").resolve().name if vendor == VENDOR and driver in ("i915", "xe") else ""
    except (OSError, UnicodeDecodeError):
        return ""
