"""What a host shows of itself before anything starts there: without torch, in a tenth of a second."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import secrets
import time
from pathlib import Path
from typing import Any

from launcher.clusters import gpus, intel
from launcher.code import code_hash
from launcher.devices import CPU, CUDA, XPU

VERSIONS = ("torch", "accelerate")
_PROBE = bytes(1 << 16)
_NONCE_SECONDS = 3.0
"""For a file that another machine has just written to be seen here."""


def hello(header: dict[str, Any]) -> dict[str, Any]:
    project = Path(header["project"])
    count, sure = _devices(str(header["device"]))
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in VERSIONS},
        "code": dict(code_hash.of_packages(project, (), project))["launcher"],
        "devices": count,
        "sure": sure,
        "time": time.time(),
        "problem": _of_run(header) or _of_room(header),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _devices(kind: str) -> tuple[int, bool]:
    if kind == CPU:
        return 0, True
    if kind == XPU:
        found = intel.find()
        return found.cards or min(found.inside, 1), not found.cards
    assert kind == CUDA
    shown = gpus.find()
    return shown.count, shown.sure


def _of_run(header: dict[str, Any]) -> str:
    """Whether the run's directory is the one that the launcher has: it has written a word there that nobody can guess."""
    if not (nonce := header.get("nonce")):
        return ""
    path = Path(header["place"]) / "nonce"
    until = time.monotonic() + _NONCE_SECONDS
    why = ""
    while time.monotonic() < until:
        try:
            found = path.read_text(encoding="utf-8")
        except OSError as error:
            why = str(error.strerror or error)
            if not Path(header["run"]).exists():
                break
        else:
            if found == nonce:
                return ""
            why = "there is another one of that name"
        time.sleep(0.1)
    return f"it does not see the run's directory {header['run']} ({why}); put runs_dir=… where all hosts see it"


def _of_room(header: dict[str, Any]) -> str:
    """Whether something can be written where the run and its processes write."""
    wanted = [(Path(header["place"]), "runs_dir=…")] if header.get("nonce") else []
    # Not tempfile's: where this one is full it goes elsewhere, the working directory at last, and torch's own code does not.
    wanted.append((Path(os.environ.get("TMPDIR") or "/tmp"), "its TMPDIR"))
    for place, word in wanted:
        path = place / f".launcher-{secrets.token_hex(8)}-room"  # two hosts may give the same pid
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                os.write(descriptor, _PROBE)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            return f"nothing can be written to {place} there ({error.strerror}); make room, or name another place: {word}"
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
    return ""
