"""A folder that is being written: beside its place, and there whole by one rename, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

from launcher.errors import RunError, said
from launcher.exported.folder import MANIFEST, SEALED, manifest
from launcher.trust import living, reading, vault, writing

Place = Path | io.BytesIO
"""Where a library writes a file, and reads it again."""


class Draft:
    """Of an export. `at(name)` is where a file is to be written; `write` does it."""

    def __init__(self, target: Path, place: Path, key: bytes | None = None) -> None:
        """With a key nothing of it is plain on a disk at any time: a file is in memory until all of it is there, and then encrypted."""
        self.target, self.place, self._key = target, place, key
        self._memory: dict[str, io.BytesIO] = {}
        self._told: dict[str, Any] = {}

    def at(self, name: str) -> Place:
        """At its beginning, each time."""
        if self._key is None:
            return self.place / name
        self._memory.setdefault(name, io.BytesIO()).seek(0)
        return self._memory[name]

    def write(self, name: str, data: bytes | str) -> None:
        """Raises OSError."""
        whole = data.encode() if isinstance(data, str) else data
        if self._key is None:
            _write(self.place / name, [whole])
        else:
            self._seal(name, memoryview(whole), self._key)

    def done(self, name: str) -> None:
        """With a file that was written `at` its place, and is not read any more: memory has it no longer. Raises OSError."""
        if self._key is not None:
            with self._memory.pop(name) as held, held.getbuffer() as data:
                self._seal(name, data, self._key)

    def drop(self, name: str) -> None:
        """What was written of a file, and of those that it would have beside it. Raises OSError."""
        self._memory.pop(name, None)
        for path in self.place.glob(f"{name}*"):
            path.unlink()

    def _seal(self, name: str, data: memoryview, key: bytes) -> None:
        self._told[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        _write(self.place / f"{name}{SEALED}", vault.sealed([data], len(data), name, key))

    def finish(self, told: Mapping[str, Any]) -> None:
        """Write the manifest of all files that are there, and put the folder in its place: of an export that was there, the old one goes
        when the new one is. Raises OSError."""
        assert not self._memory, "done is called for each"
        if self._key is None:
            self._told = {path.name: _digest(path) for path in sorted(self.place.iterdir()) if path.name != MANIFEST}
        self.write(MANIFEST, manifest({**told, "files": dict(sorted(self._told.items()))}))
        if self._key is not None:
            _write(self.place / MANIFEST, [manifest({"sealed": {"key": vault.mark(self._key)}})])
        for path in self.place.iterdir():
            _sync(path)
        _sync(self.place)
        spare = None
        if self.target.exists():
            spare = _beside(self.target, "old")
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
    written cannot be; then nothing of it is left, nor of one whose process was killed."""
    check(target)
    place = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clear(target)
        place = _beside(target, "part")
        yield Draft(target, place, key)
    except OSError as error:
        advice = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "type another directory: to=DIR"
        raise RunError(f"to={target}: it cannot be written ({error.strerror or said(error)}); {advice}") from error
    finally:
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


def clear(target: Path) -> None:
    """Take away what processes that are gone have left beside it; and put back what one of them had just put aside."""
    left = re.compile(rf"\.{re.escape(_stem(target))}\.(part|old)-({living.MARK})-[^-]+")
    with contextlib.suppress(OSError):
        for path in target.parent.iterdir():
            found = left.fullmatch(path.name)
            if found and not living.lives(found[2]) and not path.is_symlink() and path.lstat().st_uid == os.geteuid():
                if found[1] == "old" and not target.exists() and (path / target.name).is_dir():
                    (path / target.name).replace(target)
                shutil.rmtree(path, ignore_errors=True)


def _beside(target: Path, what: str) -> Path:
    """A directory that others cannot enter, whose name says which process made it. Raises OSError."""
    return Path(tempfile.mkdtemp(prefix=f".{_stem(target)}.{what}-{living.mark()}-", dir=target.parent))


def _stem(target: Path) -> str:
    """As much of its name as leaves room for the rest, which a name has 255 bytes for."""
    return target.name.encode()[:150].decode(errors="ignore")


def _write(path: Path, content: Iterable[bytes]) -> None:
    """Raises OSError; RunError without the package that encrypts."""
    with os.fdopen(writing.new(path), "wb") as file:
        file.writelines(content)


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
