"""What a worker tells the watchdog of its node (launcher/node/watchdog.py), and how long it may take."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

from launcher import PROJECT
from launcher.node import pulse
from launcher.node.place import Place
from launcher.node.pulse import DATA, START
from launcher.rundir.rundir import RunDir
from launcher.train.world.patience import START_SECONDS
from launcher.train.world.ranks import Ranks

TIMES_SLOWEST = 20
"""A phase may take so many times the slowest step so far, and never less than the floor."""
WIDE = 10
"""Evaluations and saves have so many floors, or times the slowest so far."""


class Watch:
    """Every rank makes one; the first of each node starts the watchdog."""

    def __init__(self, run: RunDir, place: Place, ranks: Ranks, floor: float, most: float, device: str) -> None:
        """`floor` and `most`: seconds that a phase may take at least and at most, whatever steps have been seen to take."""
        self._floor, self._most = floor, most
        self._step, self._steps = 0, 0
        self._slowest = self._slowest_outside = 0.0
        self._agreed = (0, 0)
        self._limit = max(START_SECONDS, floor)
        self._began = time.monotonic()
        self._is_outside = True
        node, processes = os.environ.get("GROUP_RANK", "0"), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        first = place.local_rank == 0
        shared = _shared(pulse.size(processes)) if first else -1
        told = ranks.gather((node, os.getpid(), shared))
        pid, descriptor = next((pid, descriptor) for name, pid, descriptor in told if name == node and descriptor >= 0)
        opened = shared if first else _opened(pid, descriptor, pulse.size(processes))
        self._beat = pulse.Pulse(opened, processes, place.local_rank, place.rank).beat
        self.at(START)
        ranks.wait()  # all have opened it
        if first:
            self._watchdog = _start([run, place.attempt, place.restart, shared, processes, os.getpid(), device], shared)
        else:
            os.close(opened)  # the memory stays

    def at(self, phase: int) -> float:
        """A part of a step begins. In the hot loop: one look at the clock, which is returned, and one write to memory."""
        now = time.monotonic()
        self._beat(self._step, phase, now, self._limit)
        return now

    def step(self, step: int) -> float:
        """A step begins, `step` updates are done: it waits for data. Returns the time, as `at` does."""
        self._note(time.monotonic(), outside=False)
        self._steps += 1
        if self._steps > 1:  # the first one compiles, and fills caches
            self._limit = min(self._most, max(self._floor, TIMES_SLOWEST * self._slowest, self._agreed[0]))
        self._step = step
        self._beat(step, DATA, self._began, self._limit)
        return self._began

    def outside(self, phase: int) -> None:
        """Something begins that is no part of a step."""
        self._note(time.monotonic(), outside=True)
        limit = max(WIDE * max(self._floor, self._slowest_outside), self._limit, self._agreed[1])
        self._beat(self._step, phase, self._began, min(self._most, limit))

    def learned(self) -> tuple[int, int]:
        """Seconds that a step, and what is no step, may take by what this rank has seen: what the ranks agree on is the most of all, for a
        node that waits for a slower one is not to take it for one that hangs."""
        return math.ceil(min(self._most, TIMES_SLOWEST * self._slowest)), math.ceil(min(self._most, WIDE * self._slowest_outside))

    def agree(self, step: int, outside: int) -> None:
        self._agreed = step, outside

    def _note(self, now: float, outside: bool) -> None:
        """What ends here took so long."""
        spent, self._began = now - self._began, now
        if self._is_outside:
            self._slowest_outside = max(self._slowest_outside, spent) if self._steps else 0.0
        elif self._steps > 1:
            self._slowest = max(self._slowest, spent)
        self._is_outside = outside


class NoWatch:
    """`train.hang_seconds=0`, or no Linux."""

    def at(self, phase: int) -> float:
        return time.monotonic()

    def step(self, step: int) -> float:
        return time.monotonic()

    def outside(self, phase: int) -> None:
        pass

    def learned(self) -> tuple[int, int]:
        return 0, 0

    def agree(self, step: int, outside: int) -> None:
        pass


def _shared(size: int) -> int:
    """Memory without a name: nothing to clean up, however we end."""
    descriptor = os.memfd_create("launcher-pulse")
    os.ftruncate(descriptor, size)
    return descriptor


def _opened(pid: int, descriptor: int, size: int) -> int:
    """The memory of the first worker of this node; where the system does not let us, some that nobody watches."""
    try:
        return os.open(f"/proc/{pid}/fd/{descriptor}", os.O_RDWR)
    except OSError as error:
        print(f"warning: nobody watches whether this rank hangs ({error})", file=sys.stderr)
        return _shared(size)


def _start(words: list[object], shared: int) -> subprocess.Popen[bytes] | None:
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "launcher.node.watchdog", *map(str, words)],
            cwd=PROJECT,  # where -m looks first
            stdin=subprocess.DEVNULL,
            pass_fds=[shared],
        )
    except OSError as error:  # too many processes, too little memory: nothing to end a training for
        print(f"warning: nobody watches whether a rank hangs ({error})", file=sys.stderr)
        return None
