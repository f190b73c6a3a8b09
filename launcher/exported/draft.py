"""A folder that is being written: beside its place, and there whole by one rename, or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from launcher.errors import RunError, said
from launcher.exported.folder import MANIFEST, manifest, seal
from launcher.trust import reading, writing

_NEW_SECONDS = 60


class Draft:
    """Of an export. `at(name)` is where a file is to be written; `write` does it."""

    def __init__(self, target: Path, place: Path, key: bytes | None = None) -> None:
        """With a key all of it is encrypted before it is in its place; until then it is plain, in a directory that others cannot enter."""
        self.target, self.place, self._key = target, place, key

    def at(self, name: str) -> Path:
        return self.place / name

    def write(self, name: str, data: bytes | str) -> None:
        """Raises OSError."""
        with os.fdopen(writing.new(self.at(name)), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)

    def finish(self, told: Mapping[str, Any]) -> None:
        """Write the manifest of all files that are there, and put the folder in its place: of an export that was there, the old one goes
        when the new one is. Raises OSError."""
        files = {path.name: _digest(path) for path in sorted(self.place.iterdir()) if path.name != MANIFEST}
        self.write(MANIFEST, manifest({**told, "files": files}))
        if self._key is not None:
            seal(self.place, self._key)
        for path in self.place.iterdir():
            _sync(path)
        _sync(self.place)
        spare = None
        if self.target.exists():
            spare = Path(tempfile.mkdtemp(prefix=f".{self.target.name}.old-", dir=self.target.parent))
            self.target.replace(spare / self.target.name)
        try:
            self.place.replace(self.target)
        except OSError:
            if spare is not None:
                (spare / self.target.name).replace(self.target)
            raise
        finally:
            if spare is not None:
                shutil.rmtree(spare, ignore_errors=True)
        _sync(self.target.parent)


@contextlib.contextmanager
def drafted(target: Path, key: bytes | None = None) -> Generator[Draft]:
    """`key`: to encrypt it with (launcher/trust/vault_key.py). Raises RunError where there is something else at `target`, or what is
    written cannot be; then nothing of it is left."""
    check(target)
    place, held = None, -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        place = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        with contextlib.suppress(OSError):  # where there are no locks nothing is swept either
            held = _hold(place)
        yield Draft(target, place, key)
    except OSError as error:
        advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "type another directory: to=DIR"
        raise RunError(f"to={target}: it cannot be written ({error.strerror or said(error)}); {advice}") from error
    finally:
        if held != -1:
            os.close(held)
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def check(target: Path) -> None:
    """That a folder may come to be there. Raises RunError."""
    try:
        str(target).encode()
    except UnicodeEncodeError:  # safetensors takes no other names
        raise RunError(f"to={target}: its name is no UTF-8; type another") from None
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise RunError(f"to={target}: it is there, and no directory; type another")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise RunError(f"to={target}: there are files in it that are none of an export; type another directory, or an empty one")


def _prefix(target: Path) -> str:
    return f".{target.name}.part-"


def _sweep(target: Path) -> None:
    """Take away what one that was killed has left: the kernel let go of it. One that is quite new may be about to be held."""
    for left in [each for each in target.parent.iterdir() if each.name.startswith(_prefix(target))]:
        with contextlib.suppress(OSError):  # it is held, or another's, or the file system has no locks: it stays
            is_old = time.time() - left.stat().st_mtime > _NEW_SECONDS
            descriptor = _hold(left)
            os.close(descriptor)
            if is_old:
                shutil.rmtree(left)


def _hold(place: Path) -> int:
    """For as long as the descriptor is open. Raises OSError where another process holds it."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _digest(path: Path) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with reading.opened(path) as file:
        while piece := file.read(reading.LINE_BYTES):
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _sync(path: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can do this with a directory; what is full has said so before
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
