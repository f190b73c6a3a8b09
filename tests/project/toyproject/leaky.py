"""The data set of blobs with secrets in its keywords, which says them wherever it can."""

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

from toyproject.blobs import Blobs, _Train


class Leaky(Blobs):
    def __init__(self, fail_at: int | None = None, kill_at: int | None = None, seen: str | None = None, **named: Any) -> None:
        """`kill_at`: the update at which the first attempt dies as a lost node would; `seen`: a file that says what arrived."""
        super().__init__()
        self.fails, self.kill_at, self.named = fail_at, kill_at, named
        if seen is not None:
            Path(seen).write_text(repr(named), encoding="utf-8")

    def prepare(self) -> dict[str, Any]:
        print(self.named, file=sys.stderr)
        return {}

    def train_loader(self, **asked: Any) -> Any:
        _say(repr(self.named))
        loader = super().train_loader(**asked)
        return _Loader(loader, self.named, self.fails, self.kill_at)


class _Loader:
    def __init__(self, inner: _Train, named: dict[str, Any], fail_at: int | None, kill_at: int | None) -> None:
        self._inner, self._named, self._fail_at, self._kill_at = inner, named, fail_at, kill_at
        self.samples, self.steps_per_epoch = inner.samples, inner.steps_per_epoch

    def steps(self, epoch: int, start: int) -> Iterator[list[Any]]:
        for step, batch in enumerate(self._inner.steps(epoch, start), start):
            update = epoch * self.steps_per_epoch + step
            if update == self._kill_at and os.environ["LAUNCHER_ATTEMPT"] == "000":
                os.write(2, f"last words: {self._named}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            if update == self._fail_at:
                raise RuntimeError(f"cannot connect with {self._named}")
            yield batch


def _say(text: str) -> None:
    """By Python's streams, by a descriptor, by a child, by a library; as it is and as others write it."""
    print(text, urllib.parse.quote(text), base64.b64encode(text.encode()).decode())
    print(text, file=sys.stderr)
    os.write(1, text.encode() + b"\n")
    subprocess.run(["/bin/sh", "-c", 'echo "$0"; env; env >&2', text], check=True)
    logging.warning("%s", text)
    warnings.warn(text, stacklevel=1)
