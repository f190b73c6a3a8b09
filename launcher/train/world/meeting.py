"""Where the processes of a run meet, and what they know that nobody else does (docs/decisions/0080-meeting-in-private.md).

On one machine they meet in files of a directory that torchrun makes and nobody else may open: no port at all. Between nodes they meet at
a port of torchrun's, and what lies in that store is sealed with a key from the run directory.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from launcher.errors import ConfigError, RunError
from launcher.node.place import Place
from launcher.plan import Plan
from launcher.train.world.patience import MEETING
from launcher.train.world.sealed import Sealed

HERE = "LAUNCHER_MEETING"
"""The directory with the key: torchrun's own on one machine, the attempt's where there are several."""
KEY = "meeting.key"
_PREFIX = f"launcher-meeting-{os.getuid()}-"
_YOUNG_SECONDS = 60.0
"""A directory this new may be somebody's who has not locked it yet."""


def secret() -> bytes:
    """What every process of this attempt has read, and no other account of this machine or network can. Raises ConfigError, or
    RunError where the file system does not answer."""
    if not (place := os.environ.get(HERE)):
        raise ConfigError(
            "this run's job.sh is of an older launcher, whose processes met at a port that was open to all; to have it written anew, type: "
            "rm job.sh in the run's directory, and resume again"
        )
    path = Path(place, KEY)
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            mode, key = os.fstat(file.fileno()).st_mode, file.read(1024)
    except OSError as error:
        kind = RunError if error.errno in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT) else ConfigError
        raise kind(f"{path} cannot be read ({error.strerror}); start the run by its job.sh or with resume") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} can be read by others (mode {stat.S_IMODE(mode):o}); put runs_dir where a file can be 0600")
    if len(key) < 32:
        raise ConfigError(f"{path} holds {len(key)} bytes instead of 32 or more; resume the run")
    return key


def store(plan: Plan, place: Place, timeout: timedelta = MEETING) -> Any:
    """A connection of its own to where the workers of this start meet. Raises ConfigError where there is no secret to meet with.

    torchrun keeps its store when it restarts the workers, keys of the dead included: the living would connect to the addresses of the
    dead (pytorch#135712; seen with torch 2.13, docs/log.md). So each restart has a file or a prefix of its own.
    """
    prefix = f"restart_{place.restart}"
    if plan.world.nodes > 1:
        tcp, _, _ = next(iter(rendezvous("env://", timeout=timeout)))
    elif port := int(os.environ["MASTER_PORT"]):  # of torchrun's on the loopback, where files cannot be locked
        tcp = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=timeout)  # pyright: ignore[reportPrivateImportUsage]  # documented as public
    else:
        secret()
        path = f"{os.environ[HERE]}/{prefix}"
        files = dist.FileStore(path, place.world)  # pyright: ignore[reportPrivateImportUsage]  # documented as public
        files.set_timeout(timeout)
        return files
    return dist.PrefixStore(prefix, Sealed(tcp, secret(), "workers"))  # pyright: ignore[reportPrivateImportUsage]  # documented as public


# ---------------------------------------------------------------- the directory


def make() -> bool:
    """A directory for this process and those it starts, 0700, with a key; gone when this process is, or swept by the next that makes one.

    On a disk of this machine. False where files cannot be locked, as FileStore does: in some sandboxes the kernel itself has no flock.
    Raises ConfigError where no directory will do.
    """
    refused, parents = "", tuple(dict.fromkeys((*_temporary(), "/dev/shm", "/tmp")))
    for parent, locks in [*((parent, True) for parent in parents), *((parent, False) for parent in parents)]:
        place = None
        try:
            sweep(Path(parent))
            place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            held = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            if locks:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends; systemd-tmpfiles leaves what is locked
            _write_key(place / KEY)
        except OSError as error:
            refused = refused or f"{parent}: {error.strerror}"
            if place is not None:
                shutil.rmtree(place, ignore_errors=True)
            continue
        os.environ[HERE] = str(place)
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        return locks
    raise ConfigError(f"no directory for the processes to meet in ({refused}); set TMPDIR to a directory on a disk of this machine")


def _temporary() -> tuple[str, ...]:
    """None where Python finds no directory that it can write."""
    with contextlib.suppress(FileNotFoundError):
        return (tempfile.gettempdir(),)
    return ()


def _write_key(path: Path) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(os.urandom(32).hex().encode())


def sweep(parent: Path) -> None:
    """Remove what torchruns of mine left behind that were killed: nobody holds its lock. The kernel says so, in any container."""
    with os.scandir(parent) as entries:
        mine = [Path(entry.path) for entry in entries if entry.name.startswith(_PREFIX)]
    for place in mine:
        with contextlib.suppress(OSError):
            if _is_left_behind(place):
                shutil.rmtree(place, ignore_errors=True)


def _is_left_behind(place: Path) -> bool:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < _YOUNG_SECONDS:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    finally:
        os.close(descriptor)
