"""One attempt at a time: the first rank of a run holds its lock file until it dies, and the kernel then lets go.

It has it some seconds after its start only. On this machine the launcher therefore holds a lock of its own before it touches anything and
until it ends, so that a second start is refused before it has left a trace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path

from launcher.errors import RunError
from launcher.rundir import standin
from launcher.trust import reading, writing

LOOK_SECONDS = 0.5
"""`is_held` has the lock for a moment itself."""
TURN_SECONDS = 60.0
LAUNCHER = "a launcher"
NO_LOCKS = (
    "launcher: warning: {} is on a file system without locks ({}): a second start is refused by a file there, which is not freed for other "
    "machines when this one fails; choose a runs_dir=… with locks for that"
)


class StaleError(Exception):
    """The lock file is not the one any more that was opened."""


def hold(path: Path, what: str, patience: float, job: str | None = None) -> int:
    """Take the lock for the life of this process; wait `patience` seconds for one that is just dying.

    A scheduler that starts `job` again has given its earlier attempt up: where that one still has the lock, go on without (it can
    write nothing, claim.py). Returns the open descriptor. Raises RunError that names the holder, or says that there is no lock.
    """
    told = what == LAUNCHER or job is not None  # once: what a worker here says, its launcher has said before
    what = f"{what} of job {job}" if job else what
    descriptor = writing.to_lock(path)
    deadline = time.monotonic() + patience
    while True:
        try:
            taken = _take(descriptor, path, told)
        except StaleError:  # NFS: somebody has replaced the file; opened anew it is the new one
            if time.monotonic() > deadline:
                raise RunError(f"{path} cannot be locked (stale file handle); choose another runs_dir=…") from None
            os.close(descriptor)
            descriptor, taken = writing.to_lock(path), False
        if not taken:
            if time.monotonic() > deadline:
                if job and f" of job {job} " in _holder(path):
                    return descriptor
                raise RunError(_held(path))
            time.sleep(0.1)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{what} on {os.uname().nodename}, pid {os.getpid()}\n".encode(), 0)
        return descriptor


def _take(descriptor: int, path: Path, told: bool) -> bool:
    """Raises RunError where neither a lock nor what stands in for one is to be had."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError as error:
        if error.errno == errno.ESTALE:
            raise StaleError from error
        try:
            taken = error.errno in standin.NO_LOCKS and standin.take(path)
        except OSError as other:
            error = other
        else:
            if error.errno in standin.NO_LOCKS:
                if taken and told:
                    print(NO_LOCKS.format(path.parent, error.strerror), file=sys.stderr)
                return taken
        raise RunError(f"{path} cannot be locked ({error.strerror}); choose another runs_dir=…") from error
    return True


@contextlib.contextmanager
def alone(lock: Path, launcher: Path) -> Generator[None]:
    """For as long as a launcher stays with a run. Raises RunError where another does, an attempt lives, or it is not ours."""
    refuse_if_held(lock)
    try:
        descriptor = hold(launcher, LAUNCHER, LOOK_SECONDS)
    except OSError as error:
        raise RunError(
            f"{launcher} cannot be written ({error.strerror}); is this run another user's? copy it, and resume the copy"
        ) from error
    try:
        yield
    finally:
        standin.leave(launcher)
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(path: Path) -> Generator[None]:
    """One after the other. Where there are no locks, what stands in for one is waited for as long as a turn can last, for its holder
    may be lost. Raises OSError where `path` cannot be made."""
    descriptor = writing.to_lock(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            deadline = time.monotonic() + TURN_SECONDS
            while not standin.take(path) and time.monotonic() < deadline:
                time.sleep(0.05)
        yield
    finally:
        standin.leave(path)
        os.close(descriptor)


def is_held(path: Path) -> bool:
    try:
        descriptor = writing.to_lock(path, make=False)
    except PermissionError:
        return _is_listed(path)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return standin.is_held(path)
    finally:
        os.close(descriptor)


def _is_listed(path: Path) -> bool:
    """Of another's run that may be read: the kernel's list of this machine's locks names the file by its number."""
    try:
        entry = path.stat()
        number = f"{os.major(entry.st_dev):02x}:{os.minor(entry.st_dev):02x}:{entry.st_ino}"
        return number in Path("/proc/locks").read_text(encoding="utf-8").split()
    except OSError:
        return False


def refuse_if_held(path: Path) -> None:
    """Raises RunError where a living attempt holds the lock."""
    if is_held(path):
        raise RunError(_held(path))


def _held(path: Path) -> str:
    left = standin.place(path)
    hint = f"; or, if that process is gone, type: rm {left}" if left is not None and standin.is_held(path) else ""
    return f"{path.parent} is being trained by {_holder(path)}; watch it with: python -m launcher logs {path.parent} -f{hint}"


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return reading.first_line(path) or "another process"
    return "another process"
