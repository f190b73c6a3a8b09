"""torch's flight recorder: a rank writes its last collectives into a file when something is written into a pipe that NCCL's process group
made (`TORCH_NCCL_DEBUG_INFO_PIPE_FILE`, torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp). One that hangs is asked before it is killed.

A pipe loses its name as soon as torch has opened it, so that nothing is left behind; who asks goes by the rank's open files.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PIPE = "TORCH_NCCL_DEBUG_INFO_PIPE_FILE"
DUMP_SECONDS = 4.0
"""For the files to come: torch looks into the pipe once a second."""

Process = tuple[int, int]
"""pid, rank."""


def stem() -> str:
    """Of the names of this node's pipes; torch appends the rank. In a directory of this machine, for few shared file systems have pipes;
    empty, which makes none, where it has none either: torch ends a process that cannot make its pipe."""
    stem = f"{tempfile.gettempdir()}/launcher-{os.environ.get('LAUNCHER_AGENT_PID', os.getppid())}-nccl-"
    try:
        os.mkfifo(probe := f"{stem}{os.getpid()}-probe")
        Path(probe).unlink()
    except OSError:
        return ""
    return stem


def hide(processes: Sequence[Process]) -> list[Process]:
    """Take the names of those pipes away that are open: a thread of torch's makes them, at some time. Returns whose are still to come."""
    if not os.environ.get(PIPE):
        return []
    left: list[Process] = []
    for pid, rank in processes:
        if _opened(pid, rank) is None:
            left.append((pid, rank))
        else:
            with contextlib.suppress(OSError):
                Path(_name(rank)).unlink()
    return left


def ask(processes: Sequence[Process], attempt: Path) -> int:
    """Have these ranks write what they remember into the attempt's directory, and wait for it. How many could be asked."""
    asked = [rank for pid, rank in processes if os.environ.get(PIPE) and _write(_opened(pid, rank))]
    until = time.monotonic() + DUMP_SECONDS
    while time.monotonic() < until and not all((attempt / f"nccl_rank_{rank}").exists() for rank in asked):
        time.sleep(0.1)
    return len(asked)


def _name(rank: int) -> str:
    return f"{os.environ[PIPE]}{rank}.pipe"


def _opened(pid: int, rank: int) -> Path | None:
    """The rank's end of its pipe; None where it has none, is gone, or is not ours to look at."""
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if str(descriptor.readlink()).removesuffix(" (deleted)") == _name(rank):
                    return descriptor
    return None


def _write(pipe: Path | None) -> bool:
    if pipe is None:
        return False
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        os.write(descriptor, b"1")
    os.close(descriptor)
    return True
