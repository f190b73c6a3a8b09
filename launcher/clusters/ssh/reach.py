"""Whether the other hosts reach a port of the first, and at which of its addresses: tried before anything starts.

Who answers has to know the token: many machines have the same address (a bridge of containers), and another program may listen there.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import time

from launcher.node import interfaces

_PORTS = range(20_000, 32_000)
"""Below what Linux gives to clients, 32768 and up."""
_TRIES = 100


class Meeting:
    """A port where this host listens until the run itself does. `problem` says why it does not."""

    def __init__(self, port: int | None, token: str) -> None:
        self.port, self.problem, self._token = 0, "", token.encode()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setblocking(False)
        for each in [port] if port else random.sample(_PORTS, _TRIES):
            try:
                self._socket.bind(("", each))
                self._socket.listen(4096)
            except OSError as error:
                self.problem = f"port {each} cannot be listened at ({error.strerror})"
            else:
                self.port, self.problem = each, ""
                return

    def fileno(self) -> int:
        return self._socket.fileno()

    def greet(self, ready: list[int]) -> None:
        while self.fileno() in ready:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            with caller, contextlib.suppress(OSError):
                caller.setblocking(False)
                caller.send(self._token)
                caller.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


def addresses(interface: str | None) -> list[str]:
    """Of this host, IPv4, without loopbacks: the one that it was reached at by ssh first. Of one interface where that is named."""
    found = [address for name, address in interfaces.addresses() if interface in (None, name)]
    reached = os.environ.get("SSH_CONNECTION", "").split()[2:3]
    found = [each for each in found if not each.startswith(("127.", "169.254.", "0."))]
    return sorted(dict.fromkeys(found), key=lambda each: each not in reached)


def reached(candidates: list[str], port: int, token: str, seconds: float) -> list[str]:
    """Those at which the right one answers."""
    waiting = selectors.DefaultSelector()
    found: set[str] = set()
    for address in candidates:
        probe = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        probe.setblocking(False)
        with contextlib.suppress(OSError):
            probe.connect_ex((address, port))
            waiting.register(probe, selectors.EVENT_READ, (address, probe))
    until = time.monotonic() + seconds
    while waiting.get_map() and (left := until - time.monotonic()) > 0 and candidates[0] not in found:
        for key, _ in waiting.select(left):
            address, probe = key.data
            with contextlib.suppress(OSError):
                if probe.recv(256) == token.encode():
                    found.add(address)
            waiting.unregister(probe)
            probe.close()
    for key in [*waiting.get_map().values()]:
        key.data[1].close()
    waiting.close()
    return [address for address in candidates if address in found]
