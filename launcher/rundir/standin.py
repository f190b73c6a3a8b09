"""Where a file system has no flock: files that say who holds it stand in (docs/decisions/0060-what-stands-in-for-a-lock.md).

    .lock.000003.held    boot, pid namespace, pid, start of that process, host: made by O_EXCL; "-" when it let go

Whoever wants the lock makes the next number, after the holder of the last one is gone: two who see the same dead holder want the same
number, and one gets it. The last file stays, so that no number comes twice: a file that is taken away and made again has a moment in which
two hold it. Of a process on this machine it is known whether it lives. Of one elsewhere nothing is known: it counts as alive until somebody
removes the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

from launcher.trust import living, reading, writing

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)
"""What flock answers there; the last one in a sandbox."""
WRITING_SECONDS = 10.0
"""A file that is empty for longer is of a machine that lost its power, or of a disk that was full, while it was written."""
FREE = "-"


def take(lock: Path) -> bool:
    """Whether it is ours now. Raises OSError where the file cannot be made."""
    last = place(lock)
    if _lives(last):
        return False
    mine = _numbered(lock, 0 if last is None else _number(last) + 1)
    try:
        descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, _who().encode())
    finally:
        os.close(descriptor)
    if last is not None:
        with contextlib.suppress(OSError):
            last.unlink()
    return True


def leave(lock: Path) -> None:
    """By who holds it and lives on."""
    last = place(lock)
    if last is not None and _read(last) == _who():
        with contextlib.suppress(OSError):
            writing.over(last, FREE)


def is_held(lock: Path) -> bool:
    return _lives(place(lock))


def place(lock: Path) -> Path | None:
    """The last of the files: whose holder is the lock's."""
    found = [path for path in lock.parent.glob(f"{lock.name}.*.held") if path.name.split(".")[-2].isdecimal()]
    return max(found, key=_number, default=None)


def _numbered(lock: Path, number: int) -> Path:
    return lock.with_name(f"{lock.name}.{number:06d}.held")


def _number(path: Path) -> int:
    return int(path.name.split(".")[-2])


def _lives(held: Path | None) -> bool:
    if held is None:
        return False
    words = _read(held)
    if not words:
        return _is_new(held)
    said = words.split(maxsplit=4)
    if len(said) != 5:
        return False
    *machine, pid, start, _ = said
    if machine[0] != living.machine()[0]:
        return said[4] != os.uname().nodename  # this machine before it was started again
    return machine != living.machine() or start == living.start(pid)


def _is_new(held: Path) -> bool:
    try:
        return time.time() - held.stat().st_mtime < WRITING_SECONDS
    except OSError:
        return False


def _read(held: Path) -> str:
    try:
        return reading.first_line(held)
    except OSError:
        return ""


def _who() -> str:
    return " ".join((*living.machine(), str(os.getpid()), living.start("self"), os.uname().nodename))
