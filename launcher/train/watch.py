"""What a worker tells the watchdog of its node (launcher/watchdog.py), and how long it may take."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from launcher import pulse
from launcher.place import Place
from launcher.rundir import RunDir
from launcher.train.ranks import Ranks

TIMES_SLOWEST = 20
"""A phase may take so many times the slowest step so far, and never less than the floor."""
WIDE = 10
"""Evaluations and saves have so many floors, or times the slowest so far."""
START_SECONDS = 3600.0
"""Until the first step is done: data is decoded, memory is filled, a model is compiled."""


class Watch:
    """Every rank makes one; the first of each node starts the watchdog."""

    def __init__(self, run: RunDir, place: Place, ranks: Ranks, floor: float) -> None:
        """`floor` in seconds."""
        self._floor = floor
        self._step = 0
        self._slowest = self._slowest_outside = 0.0
        self._began = self._entered = time.monotonic()
        self._phase, self._done = pulse.START, 0
        node, processes = os.environ.get("GROUP_RANK", "0"), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        first = place.local_rank == 0
        shared = _shared(pulse.size(processes)) if first else -1
        here = next(pid_and for name, pid_and in ranks.gather((node, (os.getpid(), shared))) if name == node and pid_and[1] >= 0)
        opened = shared if first else os.open(f"/proc/{here[0]}/fd/{here[1]}", os.O_RDWR)
        self._pulse = pulse.Pulse(opened, processes, place.local_rank, place.rank)
        self.at(pulse.START)
        ranks.wait()  # all have opened it
        if first:
            self._watchdog = _start(run, place, shared, processes)
        else:
            os.close(opened)  # the memory stays

    def at(self, phase: int, step: int | None = None) -> None:
        """A phase begins. With `step`, the updates done so far, so does a step."""
        now = time.monotonic()
        spent = now - self._entered
        if self._phase >= pulse.EVALUATION:
            self._slowest_outside = max(self._slowest_outside, spent)
        elif self._done > 1:  # the first step compiles, and fills caches
            self._slowest = max(self._slowest, spent)
        if step is not None:
            self._step = step
            self._done += 1
        self._phase, self._entered = phase, now
        self._pulse.beat(self._step, phase, self._limit(phase))

    def _limit(self, phase: int) -> float:
        """Seconds that it may take."""
        if phase == pulse.START or self._done < 2:
            return max(START_SECONDS, self._floor)
        if phase >= pulse.EVALUATION:
            return WIDE * max(self._floor, self._slowest_outside)
        return max(self._floor, TIMES_SLOWEST * self._slowest)


class NoWatch:
    """`train.hang_seconds=0`, or no Linux."""

    def at(self, phase: int, step: int | None = None) -> None:
        pass


def _shared(size: int) -> int:
    """Memory without a name: nothing to clean up, however we end."""
    descriptor = os.memfd_create("launcher-pulse")
    os.ftruncate(descriptor, size)
    return descriptor


def _start(run: RunDir, place: Place, shared: int, processes: int) -> subprocess.Popen[bytes]:
    words = [run, place.attempt, place.restart, shared, processes]
    return subprocess.Popen(
        [sys.executable, "-m", "launcher.watchdog", *map(str, words)],
        cwd=Path(pulse.__file__).parent.parent,  # -m looks in the working directory first, which is the user's
        stdin=subprocess.DEVNULL,
        pass_fds=[shared],
    )
