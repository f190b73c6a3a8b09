"""What updates take of energy, where the machine tells: counters of the processor (RAPL, the kernel's powercap), readings of a device's
power. Of the processor all of it counts, whoever computes on it; of a device its own board, and not the host's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from launcher.train import device as devices

POWERCAP = Path("/sys/class/powercap")


class Gauge(Protocol):
    def look(self) -> None:
        """Now and then while there is work, at its beginning and at its end."""
        ...

    def joules(self) -> float | None:
        """From the first look to the last; None where it was not readable after all."""
        ...


def gauge(device: torch.device, powercap: Path = POWERCAP) -> Gauge | None:
    """None where nothing is readable here: nobody makes a number up."""
    if not devices.is_host(device):
        return None if devices.watts(device) is None else Readings(device)
    counters = [place for place in sorted(powercap.glob("*-rapl:*")) if place.name.count(":") == 1]
    return Counters(counters) if counters and all(_whole(place / "energy_uj") is not None for place in counters) else None


class Counters:
    """One a package, which begins anew at `max_energy_range_uj`; what is in a package has counters of its own, which are part of it."""

    def __init__(self, places: Sequence[Path]) -> None:
        self._places = places
        self._last: Mapping[Path, int | None] = {}
        self._micro: float | None = 0.0

    def look(self) -> None:
        now = {place: _whole(place / "energy_uj") for place in self._places}
        for place, before in self._last.items():
            after = now[place]
            if before is None or after is None or self._micro is None:
                self._micro = None
                continue
            whole = 0 if after >= before else _whole(place / "max_energy_range_uj")
            self._micro = None if whole is None else self._micro + after - before + whole
        self._last = now

    def joules(self) -> float | None:
        return None if self._micro is None else self._micro / 1e6


class Readings:
    """Watts, each for the time since the look before: the driver says the mean of the last moment."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._found: list[tuple[float, float | None]] = []

    def look(self) -> None:
        self._found.append((time.perf_counter(), devices.watts(self._device)))

    def joules(self) -> float | None:
        total = 0.0
        for (begin, _), (end, watts) in zip(self._found, self._found[1:], strict=False):
            if watts is None:
                return None
            total += watts * (end - begin)
        return total


def _whole(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
