"""One attempt at a time: the first rank of a run holds its lock file until it dies, and the kernel then lets go."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from launcher.errors import RunError


def hold(path: Path, what: str, patience: float) -> int:
    """Take the lock for the life of this process; wait `patience` seconds for one that is just dying.

    Returns the open descriptor. Raises RunError that names the holder.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RunError(_held(path)) from None
            time.sleep(0.1)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{what} on {socket.gethostname()}, pid {os.getpid()}\n".encode(), 0)
        return descriptor


def is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def refuse_if_held(path: Path) -> None:
    """Raises RunError where a living attempt holds the lock."""
    if is_held(path):
        raise RunError(_held(path))


def _held(path: Path) -> str:
    holder = path.read_text(encoding="utf-8").strip() or "another process"
    return f"{path.parent} is being trained by {holder}; watch it with: python -m launcher logs {path.parent} -f"
