"""Where a file system has no flock: a file that says who holds it stands in (docs/decisions/0060-what-stands-in-for-a-lock.md).

    .lock.held    boot, pid namespace, pid, start of that process, host: made by O_EXCL

Of a process on this machine it is known whether it lives, so that nothing needs to be freed by a holder that was killed. Of one elsewhere
nothing is known: it counts as alive until somebody removes the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
"""What flock answers there."""


def take(lock: Path) -> bool:
    """Whether it is ours now. Raises OSError where the file cannot be made."""
    held = place(lock)
    for _ in range(2):
        try:
            descriptor = os.open(held, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if is_held(lock):
                return False
            _remove(held)
            continue
        try:
            os.write(descriptor, _who().encode())
        finally:
            os.close(descriptor)
        return _read(held) == _who()
    return False


def leave(lock: Path) -> None:
    """By who holds it and lives on."""
    held = place(lock)
    with contextlib.suppress(OSError):
        if _read(held) == _who():
            held.unlink()


def is_held(lock: Path) -> bool:
    said = _read(place(lock)).split(maxsplit=4)
    if len(said) != 5:
        return False  # not there, or of a machine that lost its power while it wrote
    *machine, pid, start, _ = said
    if machine[0] != _machine()[0]:
        return said[4] != socket.gethostname()  # this machine before it was started again
    return machine != _machine() or start == _start(pid)


def place(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.held")


def _remove(held: Path) -> None:
    """Aside first: of two who find the same dead holder, one takes its file away and the other the living one's, and puts that back."""
    spare = held.with_name(f"{held.name}.{os.getpid()}")
    before = _read(held)
    with contextlib.suppress(OSError):
        held.rename(spare)
        if _read(spare) == before:
            spare.unlink()
        else:
            spare.rename(held)


def _read(held: Path) -> str:
    try:
        return held.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _who() -> str:
    return " ".join((*_machine(), str(os.getpid()), _start("self"), socket.gethostname()))


def _machine() -> list[str]:
    """Its start and the pid namespace, so that a container is a machine of its own."""
    try:
        return [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(), str(Path("/proc/self/ns/pid").readlink())]
    except OSError:  # not Linux
        return [socket.gethostname(), "-"]


def _start(pid: str) -> str:
    """When the process began, in ticks; `alive` where there is no /proc to say so; empty where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(os.getpid() if pid == "self" else int(pid), 0)
    except PermissionError:
        return "alive"
    except (OSError, ValueError):
        return ""
    return "alive"
