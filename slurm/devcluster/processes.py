"""Processes by what the kernel says of them: a namespace, a mark in the environment. Pid files may lie after a crash."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from state import CONF, MARK, STATE, Failed

_HEAD = str(Path("/proc/self/ns/net").stat().st_ino)


def marked_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    return {**kept, MARK: f"{STATE}@{_HEAD}", "SLURM_CONF": str(CONF)}


def _living() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                # behind the command in parentheses, which may hold anything
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    yield int(entry.name)


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _marks() -> Iterator[tuple[int, str]]:
    for pid in _living():
        with contextlib.suppress(OSError):
            for word in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if word.startswith(f"{MARK}=".encode()):
                    yield pid, word.decode().partition("=")[2]


def marked(name: str | None = None) -> list[int]:
    """The daemons and holders that were started by this program for this STATE."""
    return [pid for pid, mark in _marks() if mark == f"{STATE}@{_HEAD}" and name in (None, command(pid))]


def other_clusters() -> set[str]:
    """The STATE of every other cluster on this head node: there is one bridge."""
    marks = (mark.rpartition("@") for _, mark in _marks())
    return {state for state, _, head in marks if head == _HEAD} - {str(STATE)}


def network_of(path: str | Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = Path(path).stat()
        return found.st_dev, found.st_ino
    return None


def inside(networks: set[tuple[int, int]], name: str | None = None) -> list[int]:
    """Every process in one of these network namespaces, whoever started it."""
    return [pid for pid in _living() if network_of(f"/proc/{pid}/ns/net") in networks and name in (None, command(pid))]


def end(which: Callable[[], list[int]], first: signal.Signals = signal.SIGKILL, grace: float = 10) -> None:
    """Signals what `which` finds until it finds nothing, with SIGKILL when `grace` seconds are over. Raises Failed if some remain."""
    for sign, seconds in ((first, grace), (signal.SIGKILL, 10)):
        deadline = time.monotonic() + seconds
        told: set[int] = set()
        while pids := which():
            for pid in set(pids) - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            told |= set(pids)
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return
    raise Failed(f"these processes do not die: {' '.join(str(pid) for pid in which())}")
