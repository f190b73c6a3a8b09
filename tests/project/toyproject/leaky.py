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

from data.stacked import Stacked
from toyproject.blobs import Blobs
from toyproject.faulty import Faulty


class Leaky:
    def __init__(self, fail_at: int | None = None, kill_at: int | None = None, seen: str | None = None, **named: Any) -> None:
        """`kill_at`: the update at which the first attempt dies as a lost node would; `seen`: a file that says what arrived."""
        self.fail_at, self.kill_at, self.named = fail_at, kill_at, named
        if seen is not None:
            Path(seen).write_text(repr(named), encoding="utf-8")

    def prepare(self) -> dict[str, Any]:
        print(self.named, file=sys.stderr)
        return {}

    def part(self, split: str, device: Any) -> Stacked:
        if split == "train":
            _say(repr(self.named))
        return Stacked.read(Blobs(split), split, device, 0)


class LeakyLoader(Faulty):
    def update(self, epoch: int, step: int) -> Iterator[Any]:
        update, data = epoch * self.steps_per_epoch + step, self._data
        if update == data.kill_at and os.environ["LAUNCHER_ATTEMPT"] == "000":
            os.write(2, f"last words: {data.named}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        if update == data.fail_at:
            raise RuntimeError(f"cannot connect with {data.named}")
        return super().update(epoch, step)


def _say(text: str) -> None:
    """By Python's streams, by a descriptor, by a child, by a library; as it is and as others write it."""
    print(text, urllib.parse.quote(text), base64.b64encode(text.encode()).decode())
    print(text, file=sys.stderr)
    os.write(1, text.encode() + b"\n")
    subprocess.run(["/bin/sh", "-c", 'echo "$0"; env; env >&2', text], check=True)
    logging.warning("%s", text)
    warnings.warn(text, stacklevel=1)
