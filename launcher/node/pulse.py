"""Where each process of a node is, in memory that they share with whoever watches them: written a few times a step, never waited for."""

from __future__ import annotations

import functools
import mmap
import os
import struct
from dataclasses import dataclass

PHASES = ("start", "data", "forward", "backward", "update", "boundary", "evaluation", "save", "end")
"""In the order of a step; what comes before the first one and after the last one is no part of it."""
START, DATA, FORWARD, BACKWARD, UPDATE, BOUNDARY, EVALUATION, SAVE, END = range(9)
WAITS = frozenset({"backward", "boundary", "evaluation", "save"})
"""Phases in which a process may be waiting for others."""
AHEAD = frozenset({"forward", "backward", "update"})
"""Phases in which a host may be waiting for its GPU: it runs ahead until the launch queue is full, and then blocks in any call of CUDA."""

_SLOT = struct.Struct("=QQqQdd")
"""pid, rank, step, phase, since, limit."""


@dataclass(frozen=True)
class Beat:
    """What a process last said of itself."""

    pid: int
    rank: int
    step: int
    """Optimizer updates done."""
    phase: str
    since: float
    """Seconds of the monotonic clock, which all processes of a node share."""
    limit: float
    """Seconds that this phase may take."""

    @property
    def place(self) -> tuple[int, int]:
        """Later in training is larger."""
        return self.step, PHASES.index(self.phase)

    def is_late(self, now: float, awake: float) -> bool:
        """`awake`: since when the whole job runs without a break."""
        return now - max(self.since, awake) > self.limit

    def __str__(self) -> str:
        return f"rank {self.rank} in {self.phase} of step {self.step + 1}"


class Pulse:
    """One slot for each local process; `index` is ours."""

    def __init__(self, descriptor: int, processes: int, index: int, rank: int) -> None:
        shared = mmap.mmap(descriptor, processes * _SLOT.size)
        self._pack = functools.partial(_SLOT.pack_into, shared, index * _SLOT.size, os.getpid(), rank)

    def beat(self, step: int, phase: int, since: float, limit: float) -> None:
        """`phase` by its number: this is in the hot loop."""
        self._pack(step, phase, since, limit)


def read(shared: mmap.mmap) -> list[Beat]:
    """Of all processes that have written one."""
    beats: list[Beat] = []
    for pid, rank, step, phase, since, limit in _SLOT.iter_unpack(shared[: len(shared) // _SLOT.size * _SLOT.size]):
        if pid and phase < len(PHASES):
            beats.append(Beat(pid, rank, step, PHASES[int(phase)], since, limit))
    return beats


def size(processes: int) -> int:
    return processes * _SLOT.size
