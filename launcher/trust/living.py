"""Who made something, in a word that is part of its name: so that what a process left that was killed may go, and never what one that
lives is at work in. Of a process on another machine nothing is known: it counts as alive."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

MARK = r"[0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}-[0-9]+-\w+"


def mark() -> str:
    """Of this process."""
    boot, space = machine()
    return "-".join((*map(_short, (os.uname().nodename, boot, space)), str(os.getpid()), start("self")))


def lives(made_by: str) -> bool:
    """By its mark."""
    if not re.fullmatch(MARK, made_by):
        return True
    host, boot, space, pid, began = made_by.split("-")
    now = machine()
    if boot != _short(now[0]):
        return host != _short(os.uname().nodename)  # this machine, before it was started again
    return space != _short(now[1]) or began == start(pid)


def machine() -> list[str]:
    """Its start and the pid namespace, so that a container is a machine of its own."""
    try:
        return [Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(), str(Path("/proc/self/ns/pid").readlink())]
    except OSError:  # not Linux
        return [os.uname().nodename, "-"]


def start(pid: str) -> str:
    """When the process began, in ticks; `alive` where there is no /proc to say so; empty where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
    try:
        os.kill(os.getpid() if pid == "self" else int(pid), 0)
    except PermissionError:
        return "alive"
    except (OSError, ValueError):
        return ""
    return "alive"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
