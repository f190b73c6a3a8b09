"""The folder of an exported model: which files it has, and how one is opened that somebody else may have made (docs/after-training.md)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from launcher.errors import KeyFault, RunError
from launcher.trust import reading, vault, vault_key, writing

FORMAT, VERSION = "launcher-export", 1
MANIFEST = "export.json"
WEIGHTS, PROGRAM, ONNX = "model.safetensors", "program.pt2", "model.onnx"
PREPROCESSING, LABELS, GUARDS, TOKENIZER, CARD = "preprocessing.json", "labels.json", "guards.json", "tokenizer.json", "README.md"
KINDS = ("classes", "numbers", "boxes", "tokens", "tensors")
"""Of what a model predicts."""
_KEYS: Mapping[str, type] = {
    "predicts": str,
    "predicting": dict,
    "inputs": list,
    "outputs": list,
    "differences": dict,
    "missing": dict,
    "run": dict,
    "files": dict,
}
SEALED = ".sealed"
"""At the end of the name that a file has which is encrypted; `export.json` says then that it is, and has a sealed one beside it."""
_NEEDED = (PREPROCESSING,)
_MOST_BYTES = 1 << 40


class Folder:
    """One that is there, whole: its manifest was read, and each file is as long as it says. What is read is checked against its hash."""

    def __init__(self, path: Path) -> None:
        """Raises RunError in one line where it is no export, one of another version, or not whole."""
        self.path = path
        self._key: bytes | None = None
        self.told = _manifest(path)
        if "sealed" in self.told:
            self._key = vault_key.needed(f"{path}: it is encrypted (with the key {str(_mark(self.told))[:8]}), and opening it")
            self.told = _checked(path, self._unsealed_manifest())
        self.files: Mapping[str, Any] = self.told["files"]
        missing = [name for name in _NEEDED if name not in self.files]
        if self.told["predicts"] == "classes" and LABELS not in self.files:
            missing.append(LABELS)
        if missing:
            raise _broken(path, f"it has no {missing[0]}")
        for name in self.files:
            self._check_size(name)

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def read(self, name: str) -> bytes:
        """All of a file, as it was written. Raises RunError."""
        if name not in self.files:
            raise _broken(self.path, f"it has no {name}")
        data = self._bytes(name)
        if hashlib.sha256(data).hexdigest() != self.files[name].get("sha256"):
            raise _broken(self.path, f"{name} is not what was written: its sha256 is another")
        return data

    def json(self, name: str) -> Any:
        """Raises RunError."""
        try:
            return reading.parsed(self.read(name))
        except ValueError as error:
            raise _broken(self.path, f"{name} is no JSON ({error})") from error

    def _bytes(self, name: str) -> bytes:
        """Of a sealed one what was sealed, in memory alone. Raises RunError."""
        try:
            if self._key is None:
                return reading.whole(self.path / name, _MOST_BYTES)
            with reading.opened(self.path / f"{name}{SEALED}") as file:
                return vault.Opened(file, name, self._key).readall()
        except OSError as error:
            raise _broken(self.path, f"{name} cannot be read ({error.strerror or error})") from error
        except vault.Damaged as error:
            raise _broken(self.path, f"{name}{SEALED} {error}") from error
        except KeyFault as error:
            raise KeyFault(f"{self.path}: {error}") from error

    def _unsealed_manifest(self) -> dict[str, Any]:
        try:
            return reading.record(self._bytes(MANIFEST))
        except ValueError as error:
            raise _broken(self.path, f"{MANIFEST}{SEALED} is no JSON ({error})") from error

    def _check_size(self, name: str) -> None:
        told = self.files[name]
        if Path(name).name != name or not isinstance(told, dict):
            raise _broken(self.path, f"{MANIFEST} names a file {name!r:.60}, which is none of an export")
        try:
            size = (self.path / (name if self._key is None else f"{name}{SEALED}")).stat().st_size
        except OSError as error:
            raise _broken(self.path, f"{name} is not there ({error.strerror})") from error
        wanted = told.get("bytes")
        if self._key is not None and (plain := reading.whole_number(wanted)) is not None:
            wanted = vault.length(plain)
        if size != wanted:
            raise _broken(self.path, f"{name} has {size:,} bytes, and {wanted!r:.20} were written")


def manifest(told: Mapping[str, Any]) -> bytes:
    """The text of `export.json`."""
    return (json.dumps({"format": FORMAT, "version": VERSION, **told}, indent=2) + "\n").encode()


def seal(folder: Path, key: bytes) -> None:
    """Encrypt every file of an export that is being written, in place of the plain one. Raises OSError; RunError without the package."""
    for path in sorted(folder.iterdir()):
        with reading.opened(path) as file, os.fdopen(writing.new(folder / f"{path.name}{SEALED}"), "wb") as into:
            size = os.fstat(file.fileno()).st_size
            for piece in vault.sealed(iter(lambda file=file: file.read(vault.PIECE), b""), size, path.name, key):
                into.write(piece)
        path.unlink()
    with os.fdopen(writing.new(folder / MANIFEST), "wb") as into:
        into.write(manifest({"sealed": {"key": vault.mark(key)}}))


def _manifest(path: Path) -> dict[str, Any]:
    """Raises RunError."""
    if not path.is_dir():
        raise RunError(f"{path}: there is no such directory; type that of an export (launcher export RUN makes one)")
    if not (path / MANIFEST).is_file():
        run = ": it is a run; type launcher export first, and then the folder that it prints" if (path / "plan.json").is_file() else ""
        raise RunError(f"{path}: it has no {MANIFEST}, so it is no export{run or '; type that of one (launcher export RUN makes one)'}")
    try:
        told = reading.record(reading.whole(path / MANIFEST))
    except (OSError, ValueError) as error:
        raise _broken(path, f"{MANIFEST} cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if told.get("format") != FORMAT:
        raise _broken(path, f"{MANIFEST} is not one of this launcher's")
    if reading.whole_number(told.get("version")) != VERSION:
        raise RunError(
            f"{path}: an export of version {told.get('version')!r:.20}, and this launcher reads version {VERSION}; export the run again "
            "with this one, or use the launcher that wrote it"
        )
    return told if "sealed" in told else _checked(path, told)


def _mark(told: Mapping[str, Any]) -> object:
    sealed = told["sealed"]
    return sealed.get("key", "?") if isinstance(sealed, dict) else "?"


def _checked(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Raises RunError for a manifest that lacks what one has."""
    for key, kind in _KEYS.items():
        if not isinstance(told.get(key), kind):
            raise _broken(path, f"{MANIFEST} has no {key}")
    if told["predicts"] not in KINDS:
        raise _broken(path, f"{MANIFEST} says that it predicts {told['predicts']!r:.40}, which nobody knows")
    for key in ("inputs", "outputs"):
        if not told[key] or not all(map(_is_tensor, told[key])):
            raise _broken(path, f"{MANIFEST} does not say in {key} of what name, kind and shape they are")
    run = told["run"]
    if not isinstance(run.get("name"), str) or not isinstance(run.get("id"), str) or reading.whole_number(run.get("step")) is None:
        raise _broken(path, f"{MANIFEST} does not say in run of which one it is: name, id and step")
    return told


def _is_tensor(told: object) -> bool:
    """`{"name", "dtype", "shape"}`, its samples counted by "batch"."""
    if not isinstance(told, dict):
        return False
    found = cast("dict[str, Any]", told)
    shape = found.get("shape")
    is_shape = isinstance(shape, list) and all(each == "batch" or reading.whole_number(each) is not None for each in shape)
    return is_shape and isinstance(found.get("name"), str) and isinstance(found.get("dtype"), str)


def _broken(path: Path, why: str) -> RunError:
    return RunError(f"{path}: {why}; export the run again, or copy the folder again")
