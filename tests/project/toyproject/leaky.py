"""The data set of blobs with secrets in its keywords, which says them wherever it can; and a loader that fails with them."""

from __future__ import annotations

import base64
import logging
import os
import signal
import subprocess
import sys
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.resident import Resident
from toyproject.blobs import Blobs


class Leaky(Blobs):
    def __init__(self, split: str, seen: str | None = None, **named: Any) -> None:
        """`seen`: a file that says what arrived."""
        super().__init__(split)
        self.named = named
        if seen is not None:
            Path(seen).write_text(repr(named), encoding="utf-8")

    def prepare(self) -> dict[str, Any]:
        print(self.named, file=sys.stderr)
        return {}


class LeakyLoader(Resident):
    def __init__(self, data: dict[str, Leaky], *, fail_at: int | None = None, kill_at: int | None = None, **asked: Any) -> None:
        """`kill_at`: the update at which the first attempt dies as a lost node would."""
        super().__init__(data, **asked)
        self._named, self._fail_at, self._kill_at = data["train"].named, fail_at, kill_at

    def open(self, mesh: Any, device: Any) -> None:
        _say(repr(self._named))
        super().open(mesh, device)

    def update(self, epoch: int, step: int) -> Iterator[Any]:
        update = epoch * self.steps_per_epoch + step
        if update == self._kill_at and os.environ["LAUNCHER_ATTEMPT"] == "000":
            os.write(2, f"last words: {self._named}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        if update == self._fail_at:
            raise RuntimeError(f"cannot connect with {self._named}")
        return super().update(epoch, step)


def _say(text: str) -> None:
    """By Python's streams, by a descriptor, by a child, by a library; as it is and as others write it."""
    print(text, urllib.parse.quote(text), base64.b64encode(text.encode()).decode())
    print(text, file=sys.stderr)
    os.write(1, text.encode() + b"\n")
    subprocess.run(["/bin/sh", "-c", 'echo "$0"; env; env >&2', text], check=True)
    logging.warning("%s", text)
    warnings.warn(text, stacklevel=1)
