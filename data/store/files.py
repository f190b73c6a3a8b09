"""What every dataset does with files: hash them, let one process at a time write them, and say things on stderr."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.store import owner

_COMPRESSED = {b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""By how their files begin."""


def compressed(begin: bytes) -> str | None:
    """With what, by the first bytes of a file; None: with nothing that is known."""
    return next((kind for magic, kind in _COMPRESSED.items() if begin.startswith(magic)), None)


def notice(line: str) -> None:
    """One line on stderr, which is the user's terminal at submit and the rank's log later."""
    print("".join(each if each.isprintable() else ascii(each)[1:-1] for each in line), file=sys.stderr, flush=True)


def first_line(error: BaseException) -> str:
    """An error of somebody else's library in one line of at most 200 characters: of a long one the beginning, and the end, which may say
    what to do."""
    try:
        text = " ".join(str(error).split()) or type(error).__name__
    except Exception:  # its words are somebody's code too
        text = f"a {type(error).__name__} that cannot say what it is"
    return text if len(text) <= 200 else f"{text[:139]} … {text[-58:]}"


def os_error(number: int | None, line: str) -> OSError:
    """An OSError that keeps its errno and prints as `line` alone, without the number in brackets."""
    error = OSError(line)
    error.errno = number
    return error


_OF_THE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES, errno.EPERM)


def lost(error: BaseException) -> bool:
    """Whether a file could not be read for a machine's sake: a disk that fails, a file system that went away. What is in it may be good, so
    it is never left out for that. A decoder's own OSErrors have no number."""
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _OF_THE_FILE


def written(path: Path) -> tuple[int, int, int] | None:
    """Bytes, and when it was last written and changed; None where it is gone, or leads nowhere."""
    try:
        status = path.stat()
    except OSError as error:
        if lost(error):
            raise
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def cannot_write(cache: Path, error: OSError) -> OSError:
    """What a failed write below `cache` means for the user."""
    why, what = error.strerror or str(error), "free some space there, or set"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why, what = f"{why}{_whose(cache)}", "set"
    return os_error(
        error.errno,
        f"data.cache={cache}: cannot be written ({why}); {what} data.cache= or LAUNCHER_CACHE to a directory that you can write and "
        "that has room",
    )


def _whose(cache: Path) -> str:
    """Of the directory that refuses: the first one above that is there."""
    for place in (cache, *cache.parents):
        with suppress(OSError):
            return f": {place} belongs to {owner.name_of(place.stat().st_uid)}"
    return ""


def sha256_file(path: Path) -> str:
    """The file's sha256 in hex, read in pieces. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def one_at_a_time(lock: Path, doing: str) -> Iterator[None]:
    """Hold the lock file `lock`; say once what is being waited for. The kernel frees it when a holder dies.

    Some network file systems have no locks. Callers build aside and rename, so that there a missing lock costs work done
    twice and nothing else. Makes the lock's directory; raises OSError, with its errno, where it cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open(lock)
    except OSError as error:
        raise cannot_write(lock.parent, error) from error
    if descriptor is None:
        notice(f"WARNING: {lock} is somebody else's, or no file; {doing} without a lock")
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notice(f"Waiting for another process that is {doing} (lock: {lock})")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            notice(f"WARNING: {lock.parent} has no file locks ({error.strerror}); {doing} without one")
        yield
    finally:
        os.close(descriptor)


def _open(lock: Path) -> int | None:
    """None where what is in its place is not ours to hold: whoever planted it could hold it for ever. Raises OSError."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError:
        if not os.path.lexists(lock):
            raise
        return None
    entry = os.fstat(descriptor)
    if stat.S_ISREG(entry.st_mode) and owner.is_mine(entry):
        return descriptor
    os.close(descriptor)
    return None
