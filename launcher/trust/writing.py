"""Files that are opened to be written: never through a link, never what is no file (docs/decisions/0100-whose-a-run-is.md).

In a run of mine nobody plants anything; in a copy of somebody else's, in a directory that many share and in /tmp they may.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""The last, for a pipe that nobody reads would be waited for; of a file it changes nothing."""
NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What fsync answers where there is no such thing, as in some of FUSE and 9p."""


def new(path: Path) -> int:
    """A file that was not there: what a process of ours left that died is taken away first. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY, _mode(path))


def to_append(path: Path) -> int:
    """Raises OSError."""
    return _plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def to_lock(path: Path, *, make: bool = True) -> int:
    """To be locked and written over. One of several names of a file is refused too: the others may be anybody's. Raises OSError."""
    return _plain(path, os.O_RDWR | (os.O_CREAT if make else 0), names=1)


def over(path: Path, text: str) -> None:
    """In place of what is in it, in the same file. Raises OSError."""
    with os.fdopen(_plain(path, os.O_WRONLY | os.O_CREAT, names=1), "w", encoding="utf-8") as file:
        file.truncate()
        file.write(text)


def sync(descriptor: int) -> str:
    """Onto the disk. Where the file system has no such thing, its word for that, and empty where it has: with the power what was
    written may be lost. Raises OSError where the disk is full or broken.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        return error.strerror or errno.errorcode[error.errno]
    return ""


def _mode(path: Path) -> int:
    """A group reads what lies in a directory that it may read (`runs_mode=group`), as far as the umask lets it."""
    return 0o640 if path.parent.stat().st_mode & stat.S_IRGRP else 0o600


def _plain(path: Path, flags: int, names: int | None = None) -> int:
    try:
        descriptor = os.open(path, flags | _SAFELY, 0o600 if flags & os.O_RDWR else _mode(path))  # who may read a lock may hold it
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise OSError(error.errno, f"it is a link or a pipe, and no file; type: rm {path}", str(path)) from None
        raise
    entry = os.fstat(descriptor)
    if not stat.S_ISREG(entry.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is no file; type: rm {path}", str(path))
    if names is not None and entry.st_nlink > names:
        os.close(descriptor)
        raise OSError(errno.EMLINK, f"it is another file too, by another name; type: rm {path}", str(path))
    return descriptor
