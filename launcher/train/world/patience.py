"""Who waits how long for a rank that does not come, in one order: the watchdog first, for it names the rank and keeps the stacks; then
NCCL, whose own watchdog ends a process with SIGABRT and leaves no word; gloo last. The same numbers on every rank, from the frozen config.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from launcher.node import recorder

START_SECONDS = 3600.0
"""Until the first step is done: data is decoded, memory is filled, a model is compiled."""
_LONGEST_SECONDS = 6 * 3600.0
"""No phase is watched with more patience than this, or than ten times `train.hang_seconds`."""
_LATER = timedelta(minutes=10)

MEETING = timedelta(minutes=10)
"""For all processes to find each other, before anything is watched."""


@dataclass(frozen=True)
class Patience:
    watch: float
    """Seconds that the watchdog waits at most, whatever steps have been seen to take; 0: nobody watches."""
    nccl: timedelta
    gloo: timedelta

    @classmethod
    def of(cls, hang_seconds: float, platform: str = sys.platform) -> Patience:
        """Where nobody watches (`train.hang_seconds=0`, no Linux), NCCL finds a hang after ten minutes."""
        watch = max(_LONGEST_SECONDS, 10 * hang_seconds) if hang_seconds and platform == "linux" else 0.0
        nccl = timedelta(seconds=watch) + _LATER
        return cls(watch, nccl, nccl + _LATER)


def tell_nccl(attempt: Path, patience: Patience) -> None:
    """Its monitor is not to end a process before the watchdog has spoken (480 s by default); and it keeps its last collectives, to write
    them into the attempt where one times out (torch's flight recorder). What is set already stays; a torch that knows no such variable
    ignores it. Before torch makes a process group.
    """
    for name, value in {
        "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": f"{patience.nccl.total_seconds():.0f}",
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",  # its name before 2.10
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": f"{attempt}/nccl_rank_",  # torch appends the rank
        "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": f"{attempt}/nccl_rank_",
        recorder.PIPE: recorder.stem(),
    }.items():
        os.environ.setdefault(name, value)
