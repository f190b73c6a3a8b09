"""Which devices of a host are this run's: one lock for each, that the kernel lets go when its holder is gone.

A lock is a name in the kernel's table of abstract sockets (unix(7)): nobody has to be able to write anywhere, one user's run is seen by
another's, and no file is left. Each network namespace has a table of its own. The CPU of a host is one device.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from launcher.devices import CPU, KINDS


class Seats:
    def __init__(self, device: str, shown: int) -> None:
        """`shown`: how many devices of that kind a process here sees."""
        self._device, self._shown = device, shown
        self._held: dict[str, socket.socket] = {}
        self.busy = ""
        """Who had what could not be taken."""

    def take(self, count: int) -> bool:
        """All of them, or none."""
        self.leave()
        self.busy = ""
        for name in self._names():
            if len(self._held) == count:
                break
            if (lock := _locked(f"launcher {self._device} {name}")) is not None:
                self._held[name] = lock
            else:
                self.busy = self.busy or _holder(f"launcher {self._device} {name}")
        if len(self._held) == (1 if self._device == CPU else count):
            return True
        self.leave()
        return False

    def leave(self) -> None:
        for lock in self._held.values():
            lock.close()
        self._held = {}

    def environment(self) -> dict[str, str]:
        """By which its processes see those alone; nothing where none were taken."""
        visible = KINDS[self._device].visible
        return {visible: ",".join(self._held)} if visible and self._held else {}

    def _names(self) -> list[str]:
        if self._device == CPU:
            return ["0"]
        shown = os.environ.get(KINDS[self._device].visible)
        return shown.split(",") if shown else [str(number) for number in range(self._shown)]


def _locked(name: str) -> socket.socket | None:
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if sys.platform == "linux":
            lock.bind(f"\0{name}")
            lock.listen(1)
    except OSError:
        lock.close()
        return None
    return lock


def _holder(name: str) -> str:
    """`pid 123 of user 1000`, as the kernel has it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(1)
            caller.connect(f"\0{name}")
            pid, uid, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, 17, 12))  # SO_PEERCRED
    except OSError:
        return "another run"
    return f"process {pid} of user {uid}"
