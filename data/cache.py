"""Decoded once: a directory of raw arrays that all processes of a node map into memory and share.

    <cache>/<name>-<fingerprint>-v2/
        manifest.json                 what is here: shape, type, bytes and sha256 of each array, the fingerprint, what was left out
        train.images  train.labels    uint8 (n, height, width, channels); int64 (n,)
        train.sums    train.squares   int64 (n, channels): per image, so that the statistics of any part are exact

A directory is complete or absent: it is built aside, synced and renamed. It is verified whenever it is opened, and rebuilt with
one warning line where the bytes are not the ones that were written. One that is somebody else's, or could be, is passed over
(data/owner.py), and there is one of one's own beside it, with `-u<uid>` behind its name; unless what it must hold is known: then it
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data import owner
from data.corrupt import Corrupt
from data.files import cannot_write, notice, one_at_a_time, os_error, sha256_file

FORMAT = 2
MANIFEST = "manifest.json"
FIELDS: dict[str, type[np.generic]] = {"images": np.uint8, "labels": np.int64, "sums": np.int64, "squares": np.int64}

Chunks = Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]
"""Images (b, height, width, channels) and labels (b,), some at a time, so that decoding needs little memory."""


class Split(NamedTuple):
    """One file of a dataset, mapped into memory. Nobody may write to it: pages are shared."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sums: NDArray[np.int64]
    squares: NDArray[np.int64]

    def statistics(self, part: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and (population) standard deviation per channel over the images `part`, in pixel units 0..255.

        The sums are integers, so that the result is the correctly rounded one whatever the order of `part`. A constant
        channel has 1 as its deviation: it is then only shifted.
        """
        count = len(part) * self.images.shape[1] * self.images.shape[2]
        total = [int(value) for value in self.sums[part].sum(axis=0)]
        squares = [int(value) for value in self.squares[part].sum(axis=0)]
        mean = np.array([value / count for value in total])
        spread = [(count * square - value * value) / count**2 for value, square in zip(total, squares, strict=True)]
        return mean, np.sqrt(np.array([value or 1.0 for value in spread]))


def open_or_build(
    cache: Path, name: str, fingerprint: str, sources: Callable[[], Mapping[str, Chunks]], corrupt: Corrupt, known: str | None = None
) -> dict[str, Split]:
    """The splits of the dataset `name` with `fingerprint`; built from `sources()` where they are not in `cache` yet.

    One process of a node builds and the others wait for it. Raises what `sources` and its chunks raise, and OSError, with its
    errno, where the cache cannot be written; nothing half-written is left. `corrupt` learns what was left out when it was built, and
    raises where that was too much. `known`: the checksum of the manifest that these data have.
    """
    directory = cache / f"{name}-{fingerprint[:16]}-v{FORMAT}"
    if os.path.lexists(directory) and (why := owner.fault(directory)):
        if known is not None and (held := _held(directory, known)) is not None:
            return held
        notice(f"WARNING: the cache {directory} is not taken: {why}; {owner.mine_beside(directory).name} is")
        directory = owner.mine_beside(directory)
        _refuse(cache, owner.fault(directory) if os.path.lexists(directory) else "")
    if _damage(directory, fingerprint) is None:  # without the lock: a finished cache may be on a read-only disk
        return _map(directory, corrupt)
    with one_at_a_time(cache / f"{directory.name}.lock", f"decoding {name} into {cache}"):
        _refuse(cache, owner.way_fault(cache))
        damage = _damage(directory, fingerprint)
        if damage is not None:
            if directory.exists():
                notice(f"WARNING: the cache {directory} is damaged ({damage}); building it again")
                with _writing(cache):
                    _remove(directory)
            _build(directory, fingerprint, sources(), corrupt)
    return _map(directory, corrupt)


def _refuse(cache: Path, why: str) -> None:
    """Raises OSError where another cache could be put in the place of ours."""
    if why:
        raise os_error(
            errno.EPERM,
            f"data.cache={cache}: {why}, and could put other data in the place of yours; set data.cache= or LAUNCHER_CACHE to a directory "
            f"of your own, or LAUNCHER_TRUST_DIRS={cache} if you know all who write there",
        )


def _build(directory: Path, fingerprint: str, sources: Mapping[str, Chunks], corrupt: Corrupt) -> None:
    # The host is in the name: where locks do not reach other nodes, a node clears only what its own dead builders left.
    prefix = f"tmp.{directory.name}.{socket.gethostname()}."
    with _writing(directory.parent):
        for leftover in directory.parent.glob(f"{glob.escape(prefix)}*"):
            if owner.is_mine(leftover.lstat()) and not leftover.is_symlink():
                shutil.rmtree(leftover)
        building = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
    try:
        arrays: dict[str, dict[str, object]] = {}
        for split, chunks in sources.items():
            arrays |= _write_split(building, split, chunks)
        manifest = {"format": FORMAT, "fingerprint": fingerprint, "splits": list(sources), "arrays": arrays, "corrupt": corrupt.found}
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


def _write_split(building: Path, split: str, chunks: Chunks) -> dict[str, dict[str, object]]:
    """Write the four arrays of one split as they come; return their manifest entries.

    Plain writes and not a writable map: a full disk is an error here, and a SIGBUS there.
    """
    shapes: dict[str, list[int]] = {}
    hashes = {field: hashlib.sha256() for field in FIELDS}
    with ExitStack() as stack:
        with _writing(building.parent):
            files = {field: (building / f"{split}.{field}").open("xb") for field in FIELDS}
        for file in files.values():
            stack.callback(_close, file)
        for images, labels in chunks:
            # float64 holds these sums exactly (up to 2^53), and is four times faster here than int64.
            pixels = images.reshape(len(images), -1, images.shape[-1]).astype(np.float64)
            sums, squares = np.einsum("bpc->bc", pixels), np.einsum("bpc,bpc->bc", pixels, pixels)
            for field, array in zip(FIELDS, (images, labels, sums, squares), strict=True):
                raw = np.ascontiguousarray(array, FIELDS[field]).tobytes()
                hashes[field].update(raw)
                shapes.setdefault(field, [0, *array.shape[1:]])[0] += len(array)
                with _writing(building.parent):
                    files[field].write(raw)
        with _writing(building.parent):
            for file in files.values():
                _sync(file)
    if not shapes:
        raise ValueError(f"the {split} part holds no samples; point data.root at a complete copy")
    return {f"{split}.{field}": {"shape": shapes[field], "sha256": hashes[field].hexdigest()} for field in FIELDS}


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


def _map(directory: Path, corrupt: Corrupt) -> dict[str, Split]:
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    corrupt.accept(manifest["corrupt"])

    def array(split: str, field: str) -> NDArray[np.generic]:
        shape = tuple(manifest["arrays"][f"{split}.{field}"]["shape"])
        # "c" (copy on write) shares pages as "r" does; but torch warns of memory that it may not write to.
        return np.memmap(directory / f"{split}.{field}", FIELDS[field], mode="c", shape=shape)

    return {split: Split(*(array(split, field) for field in FIELDS)) for split in manifest["splits"]}  # type: ignore[arg-type]


def _held(directory: Path, known: str) -> dict[str, Split] | None:
    """What is there, in memory, where it is what `known` says to the last byte; None where it is not."""
    try:
        manifest = json.loads(_read(directory / MANIFEST, most=1 << 20))
        manifest.pop("sha256")
        if _checksum(manifest) != known:
            return None
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, entry in manifest["arrays"].items():
            kind = np.dtype(FIELDS[name.rpartition(".")[2]])
            raw = _read(directory / name, most=math.prod(entry["shape"]) * kind.itemsize)
            if hashlib.sha256(raw).hexdigest() != entry["sha256"]:
                return None
            arrays[name] = np.frombuffer(raw, kind).reshape(entry["shape"])
        return {split: Split(*(arrays[f"{split}.{field}"] for field in FIELDS)) for split in manifest["splits"]}  # type: ignore[arg-type]
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


def _close(file: IO[Any]) -> None:
    """What is buffered was synced, or the disk is full and the first error says so: a second one would hide it."""
    with suppress(OSError):
        file.close()


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
