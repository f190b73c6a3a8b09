"""What somebody who means harm leaves where a file is expected, and what it costs to meet it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from helpers import environment_in

MOST_SECONDS, MOST_BYTES = 2.0, 200 << 20
DEEP = "[" * 100_000
HUGE = "1" + "0" * 400


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def zero(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(2 << 30)


def listening(path: Path) -> None:
    path.unlink(missing_ok=True)
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{here}/{path.name}")  # its path may be no longer than a hundred bytes
    os.close(here)


def circle(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def no_text(path: Path) -> None:
    path.write_bytes(b'{"event": "\xff\xfe\x80"}\n\0\0\xc3\n')


def deep(path: Path) -> None:
    path.write_text(f'{{"event": {DEEP}\n')


def wide(path: Path) -> None:
    path.write_text('{"event": [' + "[]," * 3_000_000 + "[]]}\n")


STUFF = (pipe, zero, sparse, listening, circle, folder, no_text, deep, wide)


_DRIVER = """
import sys
from pathlib import Path
from launcher.cli import main
code = main(sys.argv[2:])
lines = Path("/proc/self/status").read_text().splitlines()
Path(sys.argv[1]).write_text(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(code)
"""
"""ru_maxrss would begin with what the parent had when it forked."""


def measured(home: Path, cache: Path, *words: str) -> tuple[int, str, str, float, int]:
    """Exit code, both streams, seconds and the most memory of a command in a process of its own."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(home / "memory"), *words],
        cwd=home,
        env=environment_in(home, cache),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    seconds = time.monotonic() - begun
    return done.returncode, done.stdout, done.stderr, seconds, int((home / "memory").read_text()) << 10
