"""Streams without secrets: those of Python are masked where they are written, what else a process says goes through a sieve.

The sieve is a small process beside a worker, there only where something is to be masked. It reads the pipe that takes the place of
descriptors 1 and 2, and ends when nobody holds the other end any more: the last words of a process that was killed are in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from launcher.trust.secret import Cut, mask

_PIECE = 65_536


class Masked:
    """A text stream in front of another, of which it has everything else. What it holds back of a line comes at the next flush."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._cut = Cut(mask)

    def write(self, text: str) -> int:
        self._stream.write(self._cut(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if rest := self._cut("", last=True):
            self._stream.write(rest)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def masked(stream: TextIO | None) -> TextIO:
    """`stream` may be None, as in a process without a terminal."""
    return cast("TextIO", stream if stream is None or isinstance(stream, Masked) else Masked(stream))


def put_before(log: int) -> None:
    """Lead descriptors 1 and 2 through a sieve into `log`. Before any thread is there, for it forks."""
    read, write = os.pipe()
    ready, until = os.pipe()
    sys.stdout.flush()
    if os.fork() == 0:
        _be_one(read, log)
    os.close(until)
    os.read(ready, 1)  # nothing comes: the sieve closes the other end when no signal to this group reaches it any more
    os.close(ready)
    os.close(read)
    os.dup2(write, 1)
    os.dup2(write, 2)
    os.close(write)


def _be_one(pipe: int, log: int) -> None:
    import signal  # here, for a verb needs none

    try:
        os.setsid()  # torchrun kills its workers by their groups: what a worker has said until then must still be read
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(pipe, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.closerange(3, 4096)
        _pass_on()
    finally:
        os._exit(0)


def _pass_on() -> None:
    cut = Cut(mask)
    while piece := os.read(0, _PIECE):
        _write(cut(piece.decode("utf-8", "surrogateescape")))
    _write(cut("", last=True))


def _write(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    while data:
        try:
            data = data[os.write(1, data) :]
        except OSError:  # a full disk loses lines, and holds up no worker
            return
