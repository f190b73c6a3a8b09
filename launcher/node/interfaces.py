"""The interfaces of this machine that have an address, as the kernel has them (netdevice(7))."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


def addresses() -> Iterator[tuple[str, str]]:
    """(name, IPv4) of each that has one."""
    import fcntl
    import struct

    for _, name in socket.if_nameindex():
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
            yield name, socket.inet_ntoa(answer[20:24])
