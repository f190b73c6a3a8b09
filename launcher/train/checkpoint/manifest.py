"""What makes a directory a checkpoint: a manifest with the size and sha256 of every file, and with its own.

Nothing here writes, and nothing in the directory is trusted: of a manifest that was made with care the names lead nowhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import CheckpointError, said
from launcher.plan import MOST_PROCESSES
from launcher.trust import reading, vault, vault_key

FORMAT, SEALED = 4, 5
_READABLE = (3, FORMAT, SEALED)
"""3 did not hold what a run has learned about itself (launcher/train/checkpoint/history.py); it begins to learn anew then.
5 is 4 with files that are encrypted (train.encrypt); its sizes and checksums are of what lies there."""
MANIFEST = "manifest.json"
_STEP = re.compile(r"step_([0-9]{9,16})")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Checkpoint:
    """One complete directory and the manifest that describes it."""

    path: Path
    step: int
    files: dict[str, dict[str, Any]]
    """File name -> {"bytes", "sha256"}."""
    world: int
    sealed: bool = False
    """Whether its files are encrypted: all of them, and what is not was put there by somebody else."""

    def read(self, name: str) -> bytes:
        """One file, verified, and plain. Raises CheckpointError that names it, and KeyFault where it is encrypted with another key."""
        if name not in self.files:
            raise CheckpointError(f"{self.path} has no {name}")
        data = bytearray()
        self._verify(name, data.extend)
        if not self.sealed:
            return bytes(data)
        try:
            return vault.plain(bytes(data), bound(self.step, name), self._key(name))
        except vault.Damaged as error:
            raise CheckpointError(f"{self.path / name} {error}") from error

    @contextlib.contextmanager
    def opened(self, name: str) -> Generator[io.RawIOBase]:
        """A file to read anywhere in, as it was before it was encrypted: the one place where one is opened for what is in it. Raises
        OSError, CheckpointError, KeyFault; what is read of a sealed one vault.Damaged."""
        with reading.opened(self.path / name) as file:
            if not self.sealed:
                yield file
                return
            try:
                plain = vault.Opened(file, bound(self.step, name), self._key(name))
            except vault.Damaged as error:
                raise CheckpointError(f"{self.path / name} {error}") from error
            yield plain

    def _key(self, name: str) -> bytes:
        return vault_key.needed(f"{self.path / name} is encrypted, and reading it")

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Every byte of those files, or of all, without keeping it. Raises CheckpointError that names the file."""
        for name in self.files if names is None else names:
            self._verify(name, lambda piece: None)

    def _verify(self, name: str, keep: Callable[[bytes], None]) -> None:
        path, wanted, digest = self.path / name, self.files[name], hashlib.sha256()
        try:
            with reading.opened(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size != wanted["bytes"]:
                    raise CheckpointError(f"{path} has {size} bytes of {wanted['bytes']}")
                while piece := file.read(reading.LINE_BYTES):
                    digest.update(piece)
                    keep(piece)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
        if digest.hexdigest() != wanted["sha256"]:
            raise CheckpointError(f"{path} does not have the sha256 it was written with")


def by_step(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in it, newest first, by name: clocks jump. None where there is no such directory."""
    try:
        entries = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    matches = [(_STEP.fullmatch(entry.name), entry) for entry in entries]
    return sorted(((int(match[1]), entry) for match, entry in matches if match), reverse=True)


def verify(path: Path) -> Checkpoint:
    """Read a checkpoint's manifest and check every byte it lists. Raises CheckpointError that names the file."""
    checkpoint = describe(path)
    checkpoint.verify()
    return checkpoint


def describe(path: Path) -> Checkpoint:
    """What a checkpoint's manifest says of it; its files are checked as they are read. Raises CheckpointError."""
    manifest_path = path / MANIFEST
    try:
        manifest = _unseal(reading.whole(manifest_path))
        step, world = reading.whole_number(manifest["step"]), reading.whole_number(manifest["world"], MOST_PROCESSES)
        if manifest["format"] not in _READABLE or step is None or path.name != directory_name(step):
            raise ValueError(f"format {manifest['format']}, step {manifest['step']}")
        if not world:
            raise ValueError(f"a world of {manifest['world']}")
        files = {name: _entry(name, entry) for name, entry in manifest["files"].items()}
        return Checkpoint(path, step, files, world, manifest["format"] == SEALED)
    except OSError as error:
        raise CheckpointError(f"{manifest_path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{manifest_path} is no manifest of this directory ({said(error)})") from error


def _entry(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError, TypeError or KeyError: a file is one of this directory, whoever wrote the manifest."""
    if not _FILE.fullmatch(name):
        raise ValueError(f"a file named {name[:80]!r}")
    if reading.whole_number(entry["bytes"]) is None or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise ValueError(f"of {name} neither size nor checksum")
    return {"bytes": entry["bytes"], "sha256": entry["sha256"]}


def seal(manifest: dict[str, Any]) -> bytes:
    """The manifest with its own checksum: it vouches for every other file, so it needs somebody to vouch for it."""
    body = json.dumps(manifest, indent=1, sort_keys=True)
    return json.dumps({"manifest": manifest, "sha256": hashlib.sha256(body.encode()).hexdigest()}, indent=1, sort_keys=True).encode()


def _unseal(data: bytes) -> dict[str, Any]:
    """Raises ValueError for any byte that is not as `seal` wrote it."""
    manifest = reading.record(data)["manifest"]
    if not isinstance(manifest, dict) or seal(manifest) != data:
        raise ValueError("its checksum does not match")
    return manifest


def bound(step: int, name: str) -> str:
    """What a sealed file is bound to: in another checkpoint, or by another name, it is not taken."""
    return f"{directory_name(step)}/{name}"


def directory_name(step: int) -> str:
    return f"step_{step:09d}"
