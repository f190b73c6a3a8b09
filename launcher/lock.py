"""One attempt at a time: the first rank of a run holds its lock file until it dies, and the kernel then lets go.

It has it some seconds after its start only. On this machine the launcher therefore holds a lock of its own before it touches anything and
until it ends, so that a second start is refused before it has left a trace.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Generator
from pathlib import Path

from launcher.errors import RunError

LOOK_SECONDS = 0.5
"""`is_held` has the lock for a moment itself."""


def hold(path: Path, what: str, patience: float, job: str | None = None) -> int:
    """Take the lock for the life of this process; wait `patience` seconds for one that is just dying.

    A scheduler that starts `job` again has given its earlier attempt up: where that one still has the lock, go on without (it can
    write nothing, launcher/claim.py). Returns the open descriptor. Raises RunError that names the holder.
    """
    what = f"{what} of job {job}" if job else what
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                if job and f" of job {job} " in _holder(path):
                    return descriptor
                raise RunError(_held(path)) from None
            time.sleep(0.1)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{what} on {socket.gethostname()}, pid {os.getpid()}\n".encode(), 0)
        return descriptor


@contextlib.contextmanager
def alone(lock: Path, launcher: Path) -> Generator[None]:
    """For as long as a launcher stays with a run. Raises RunError where another does, an attempt lives, or it is not ours."""
    refuse_if_held(lock)
    try:
        descriptor = hold(launcher, "a launcher", LOOK_SECONDS)
    except OSError as error:
        raise RunError(
            f"{launcher} cannot be written ({error.strerror}); is this run another user's? copy it, and resume the copy"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


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
    return f"{path.parent} is being trained by {_holder(path)}; watch it with: python -m launcher logs {path.parent} -f"


def _holder(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() or "another process"
