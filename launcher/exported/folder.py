"""The folder of an exported model: which files it has, and how one is opened that somebody else may have made (docs/after-training.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.errors import RunError
from launcher.trust import reading

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
_NEEDED = (PREPROCESSING,)
_MOST_BYTES = 1 << 40


class Folder:
    """One that is there, whole: its manifest was read, and each file is as long as it says. What is read is checked against its hash."""

    def __init__(self, path: Path) -> None:
        """Raises RunError in one line where it is no export, one of another version, or not whole."""
        self.path = path
        self.told = _manifest(path)
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
        try:
            data = reading.whole(self.path / name, _MOST_BYTES)
        except OSError as error:
            raise _broken(self.path, f"{name} cannot be read ({error.strerror or error})") from error
        if hashlib.sha256(data).hexdigest() != self.files[name].get("sha256"):
            raise _broken(self.path, f"{name} is not what was written: its sha256 is another")
        return data

    def json(self, name: str) -> Any:
        """Raises RunError."""
        try:
            return reading.parsed(self.read(name))
        except ValueError as error:
            raise _broken(self.path, f"{name} is no JSON ({error})") from error

    def _check_size(self, name: str) -> None:
        told = self.files[name]
        if Path(name).name != name or not isinstance(told, dict):
            raise _broken(self.path, f"{MANIFEST} names a file {name!r:.60}, which is none of an export")
        try:
            size = (self.path / name).stat().st_size
        except OSError as error:
            raise _broken(self.path, f"{name} is not there ({error.strerror})") from error
        if size != told.get("bytes"):
            raise _broken(self.path, f"{name} has {size:,} bytes, and {told.get('bytes')!r:.20} were written")


def manifest(told: Mapping[str, Any]) -> bytes:
    """The text of `export.json`."""
    return (json.dumps({"format": FORMAT, "version": VERSION, **told}, indent=2) + "\n").encode()


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
    if told.get("version") != VERSION:
        raise RunError(
            f"{path}: an export of version {told.get('version')!r:.20}, and this launcher reads version {VERSION}; export the run again "
            "with this one, or use the launcher that wrote it"
        )
    for key, kind in _KEYS.items():
        if not isinstance(told.get(key), kind):
            raise _broken(path, f"{MANIFEST} has no {key}")
    if told["predicts"] not in KINDS:
        raise _broken(path, f"{MANIFEST} says that it predicts {told['predicts']!r:.40}, which nobody knows")
    return told


def _broken(path: Path, why: str) -> RunError:
    return RunError(f"{path}: {why}; export the run again, or copy the folder again")
