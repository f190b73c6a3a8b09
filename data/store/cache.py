"""Made once: directories of raw arrays that all processes of a node map into memory and share.

    <cache>/<name>-<fingerprint>-v2/
        manifest.json                 what is here: shape, bytes and sha256 of each array, the fingerprint, what the maker adds
        train.images  train.labels    each array, raw; the last part of its name says its type

A directory is complete or absent: it is built aside, synced and renamed. It is verified whenever it is opened, and rebuilt with
one warning line where the bytes are not the ones that were written. One that is somebody else's, or could be, is passed over
(data/store/owner.py), and there is one of one's own beside it, with `-u<uid>` behind its name; unless what it must hold is known: then it
is read into memory and checked there, for its owner may change what is mapped.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.store import owner
from data.store.files import cannot_write, notice, one_at_a_time, os_error, sha256_file

FORMAT = 2
MANIFEST = "manifest.json"

Types = Mapping[str, type[np.generic]]
"""By the last part of an array's name, e.g. images in train.images."""


class Kept(NamedTuple):
    """One directory, mapped into memory. Nobody may write to it: pages are shared."""

    manifest: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


class Arrays:
    """Those of a directory that is being built, written as they come.

    Plain writes and not a writable map: a full disk is an error here, and a SIGBUS there.
    """

    def __init__(self, building: Path, types: Types) -> None:
        self._building, self._types = building, types
        self._files: dict[str, IO[bytes]] = {}
        self._hashes: dict[str, Any] = {}
        self._shapes: dict[str, list[int]] = {}

    def append(self, name: str, array: NDArray[Any]) -> None:
        """`array` (b, …) goes behind what there is of `name`. Raises OSError, with its errno."""
        raw = np.ascontiguousarray(array, self._types[name.rpartition(".")[2]]).tobytes()
        with _writing(self._building.parent):
            if name not in self._files:
                self._files[name] = (self._building / name).open("xb")
            self._files[name].write(raw)
        self._hashes.setdefault(name, hashlib.sha256()).update(raw)
        self._shapes.setdefault(name, [0, *array.shape[1:]])[0] += len(array)

    def finish(self) -> dict[str, dict[str, object]]:
        """Their manifest entries, once they are on the disk. Raises OSError, with its errno."""
        with _writing(self._building.parent):
            for file in self._files.values():
                _sync(file)
        return {name: {"shape": shape, "sha256": self._hashes[name].hexdigest()} for name, shape in self._shapes.items()}

    def close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # what is buffered was synced, or the disk is full and the first error says so: a second would hide it
                file.close()


Build = Callable[[int, Arrays], Mapping[str, object]]
"""Writes the arrays of the directory with that number, and returns what its manifest has beside them."""


def open_or_build(
    cache: Path, names: Sequence[str], fingerprint: str, types: Types, build: Build, doing: str, known: str | None = None
) -> list[Kept]:
    """The directories `names` of the data with `fingerprint`; those that are not in `cache` yet are built, one after the other.

    One process of a node builds and the others wait for it. What is whole stays when a builder dies: the next goes on behind it. Raises
    what `build` raises, and OSError, with its errno, where the cache cannot be written; nothing half-written is left. `doing`: what others
    read who wait. `known`: the checksum of the manifest that the one directory has.
    """
    found = [_place(cache, cache / f"{name}-{fingerprint[:16]}-v{FORMAT}", types, known) for name in names]
    # Without the lock: a finished cache may be on a read-only disk.
    wanting = [number for number, (place, held) in enumerate(found) if held is None and _damage(place, fingerprint) is not None]
    if wanting:
        with one_at_a_time(cache / f"{found[0][0].name}.lock", doing):
            _refuse(cache, owner.way_fault(cache))
            for number in wanting:
                directory = found[number][0]
                damage = _damage(directory, fingerprint)
                if damage is not None:
                    if directory.exists():
                        notice(f"WARNING: the cache {directory} is damaged ({damage}); building it again")
                        with _writing(cache):
                            _remove(directory)
                    _build(directory, fingerprint, types, number, build)
    return [_map(place, types) if held is None else held for place, held in found]


def _place(cache: Path, directory: Path, types: Types, known: str | None) -> tuple[Path, Kept | None]:
    """Where it is or goes, and what is there where that is known."""
    if os.path.lexists(directory) and (why := owner.fault(directory)):
        if known is not None and (held := _held(directory, types, known)) is not None:
            return directory, held
        notice(f"WARNING: the cache {directory} is not taken: {why}; {owner.mine_beside(directory).name} is")
        directory = owner.mine_beside(directory)
        _refuse(cache, owner.fault(directory) if os.path.lexists(directory) else "")
    return directory, None


def _refuse(cache: Path, why: str) -> None:
    """Raises OSError where another cache could be put in the place of ours."""
    if why:
        raise os_error(
            errno.EPERM,
            f"data.cache={cache}: {why}, and could put other data in the place of yours; set data.cache= or LAUNCHER_CACHE to a directory "
            f"of your own, or LAUNCHER_TRUST_DIRS={cache} if you know all who write there",
        )


def _build(directory: Path, fingerprint: str, types: Types, number: int, build: Build) -> None:
    # The host is in the name: where locks do not reach other nodes, a node clears only what its own dead builders left.
    prefix = f"tmp.{directory.name}.{socket.gethostname()}."
    with _writing(directory.parent):
        for leftover in directory.parent.glob(f"{glob.escape(prefix)}*"):
            if owner.is_mine(leftover.lstat()) and not leftover.is_symlink():
                shutil.rmtree(leftover)
        building = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
    try:
        with closing(Arrays(building, types)) as arrays:
            more = build(number, arrays)
            manifest = {"format": FORMAT, "fingerprint": fingerprint, "arrays": arrays.finish(), **more}
        with _writing(directory.parent):
            with (building / MANIFEST).open("x", encoding="utf-8") as file:
                json.dump({**manifest, "sha256": _checksum(manifest)}, file, indent=1)
                _sync(file)
            _sync_directory(building)
            _rename(building, directory)
            _refuse(directory.parent, owner.fault(directory))  # somebody was faster
            _sync_directory(directory.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _damage(directory: Path, fingerprint: str) -> str | None:
    """Why the directory is not the complete cache of `fingerprint`, in a few words; None where it is."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        if manifest.pop("sha256") != _checksum(manifest):
            return f"the checksum of {MANIFEST} is wrong"
        if (manifest["format"], manifest["fingerprint"]) != (FORMAT, fingerprint):
            return f"{MANIFEST} is of other data"
        for name, entry in manifest["arrays"].items():
            if sha256_file(directory / name) != entry["sha256"]:
                return f"the checksum of {name} is wrong"
    except OSError as error:
        return f"{Path(error.filename or directory).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not readable"
    return None


def _checksum(manifest: dict[str, object]) -> str:
    """A wrong shape maps the right bytes wrongly, so the manifest vouches for itself too."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _map(directory: Path, types: Types) -> Kept:
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))

    def array(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        kind = types[name.rpartition(".")[2]]
        # "c" (copy on write) shares pages as "r" does; but torch warns of memory that it may not write to. Nothing cannot be mapped.
        return np.memmap(directory / name, kind, mode="c", shape=shape) if math.prod(shape) else np.zeros(shape, kind)

    return Kept(manifest, {name: array(name, tuple(entry["shape"])) for name, entry in manifest["arrays"].items()})


def _held(directory: Path, types: Types, known: str) -> Kept | None:
    """What is there, in memory, where it is what `known` says to the last byte; None where it is not."""
    try:
        manifest = json.loads(_read(directory / MANIFEST, most=1 << 20))
        manifest.pop("sha256")
        if _checksum(manifest) != known:
            return None
        arrays: dict[str, NDArray[Any]] = {}
        for name, entry in manifest["arrays"].items():
            kind = np.dtype(types[name.rpartition(".")[2]])
            raw = _read(directory / name, most=math.prod(entry["shape"]) * kind.itemsize)
            if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
                return None
            arrays[name] = np.frombuffer(raw, kind).reshape(entry["shape"])
        return Kept(manifest, arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _read(path: Path, most: int) -> bytearray:
    """At most so many bytes and one more, of a file and nothing else: it is another's. Raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no file", str(path))
        raw = bytearray(min(most, os.fstat(file.fileno()).st_size) + 1)
        del raw[file.readinto(raw) :]
        return raw


def _rename(building: Path, directory: Path) -> None:
    try:
        building.rename(directory)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        # Only where locks do not work: another node was faster, and built the same from the same files.


def _remove(directory: Path) -> None:
    """Out of sight by one rename first: a reader sees the old whole or nothing. Maps that are open stay valid."""
    aside = Path(tempfile.mkdtemp(prefix=f"tmp.{directory.name}.{socket.gethostname()}.", dir=directory.parent))
    directory.rename(aside / directory.name)
    shutil.rmtree(aside)


def _sync(file: IO[Any]) -> None:
    """Where the file system can: what is lost with the power is found by its checksum, and decoded again."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise


def _sync_directory(directory: Path) -> None:
    """As far as the file system can."""
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(cache, error) from error
