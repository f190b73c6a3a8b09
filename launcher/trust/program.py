"""What other programs say: a scheduler's, git, nvidia-smi, bash. They may say it without end, or say nothing for ever."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple

MOST_BYTES = 16 << 20
"""Of all that a program says: a queue of a hundred thousand jobs is as long, and git's list of three hundred thousand files."""
_PIECE = 1 << 16


class Said(NamedTuple):
    status: int
    out: bytes
    err: bytes


class TooMuchError(Exception):
    """A program said more than anybody could mean: why in words that follow its name."""


def hear(
    argv: Sequence[str], seconds: float, given: bytes = b"", environment: Mapping[str, str] | None = None, place: str | None = None
) -> Said:
    """Run a program to its end, in the directory `place`, with `given` as its stdin.

    Raises OSError where it cannot be run, TimeoutError where it has not ended within `seconds`, TooMuchError where it said more than
    MOST_BYTES. It is ended then, and what it started too, for it may be a script around the real one.
    """
    pipe = subprocess.PIPE
    program = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=place, start_new_session=True)
    with program:
        try:
            out, err = _talk(program, given, time.monotonic() + seconds)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            raise
    return Said(program.returncode, out, err)


def _talk(program: subprocess.Popen[bytes], given: bytes, end: float) -> tuple[bytes, bytes]:
    assert program.stdin is not None
    assert program.stdout is not None
    assert program.stderr is not None
    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(program.stdout, selectors.EVENT_READ, out)
        selector.register(program.stderr, selectors.EVENT_READ, err)
        os.set_blocking(program.stdin.fileno(), False)
        selector.register(program.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            for key, _ in selector.select(_left(end)):
                if key.fileobj is program.stdin:
                    given = _tell(program.stdin, given)
                    if not given:
                        selector.unregister(program.stdin)
                        with contextlib.suppress(BrokenPipeError):
                            program.stdin.close()
                elif piece := os.read(key.fd, _PIECE):
                    key.data.extend(piece)
                    if len(out) + len(err) > MOST_BYTES:
                        raise TooMuchError(f"said more than {MOST_BYTES >> 20} MiB, and was ended")
                else:
                    selector.unregister(key.fileobj)
    try:
        program.wait(_left(end))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return bytes(out), bytes(err)


def _left(end: float) -> float:
    """Raises TimeoutError where that is nothing: also of a program that says a word now and then."""
    if (left := end - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _tell(stdin: IO[bytes], given: bytes) -> bytes:
    """What is left to be said to it; nothing where it does not listen any more."""
    try:
        return given[os.write(stdin.fileno(), given[:_PIECE]) :] if given else b""
    except BlockingIOError:
        return given
    except BrokenPipeError:
        return b""
