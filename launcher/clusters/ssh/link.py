"""One connection to one host, for as long as the run has processes there: ssh, and `agent.py` at its other end.

Both send lines of JSON. What a login shell prints by itself is none of the agent's lines, for those begin with a word that only this
connection knows. The command is the same for all: words of a user go through stdin, where no shell reads them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

from launcher.clusters import submit
from launcher.clusters.ssh.hosts import Host

_BOOT = (
    "import sys,json;h=json.loads(sys.stdin.buffer.readline());sys.path.insert(0,h['project']);"
    "from launcher.clusters.ssh.agent import main;sys.exit(main(h))"
).replace("'", '"')
OPTIONS = {
    "BatchMode": "yes",
    "ControlPath": "none",
    "ControlMaster": "no",
    "ClearAllForwardings": "yes",
    "ForwardX11": "no",
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "EscapeChar": "none",
    "LogLevel": "ERROR",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}
"""Over the user's own configuration, which says how to get there: a connection of its own, without a question, that notices its end."""
CONNECT_SECONDS = 5.0
"""For a host's address to answer; what its login takes comes on top."""
_MOST_LINE = 1 << 20
_KEPT_LINES = 20


def argv(host: str, python: str, seconds: float, config: str | None) -> list[str]:
    connect = round(max(1, min(seconds, CONNECT_SECONDS)))
    options = [word for key, value in {**OPTIONS, "ConnectTimeout": connect}.items() for word in ("-o", f"{key}={value}")]
    return ["ssh", *(("-F", config) if config else ()), *options, "--", host, f"exec {shlex.quote(python)} -u -c {shlex.quote(_BOOT)}"]


class Link:
    """Not waited for: `read` says what has come."""

    def __init__(self, host: Host, number: int, python: str, seconds: float, config: str | None, header: dict[str, Any]) -> None:
        self.host, self.number, self.python = host, number, python
        self.err: list[str] = []
        self.heard = time.monotonic()
        self.status: int | None = None
        self._mark = f"launcher {secrets.token_hex(8)} "
        self._process = submit.linked(argv(host.name, python, seconds, config))
        self._out, self._rest, self._err_rest = b"", b"", b""
        self._streams = cast("tuple[IO[bytes], ...]", (self._process.stdin, self._process.stdout, self._process.stderr))
        for stream in self._streams:
            os.set_blocking(stream.fileno(), False)
        self._write(json.dumps({**header, "number": number, "mark": self._mark}).encode() + b"\n")

    def __str__(self) -> str:
        return self.host.name

    @property
    def files(self) -> tuple[int, int]:
        """To be waited for."""
        return self._streams[1].fileno(), self._streams[2].fileno()

    def send(self, do: str, **what: Any) -> None:
        self._write(json.dumps({"do": do, **what}).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        """What does not go out now, goes with the next. Who cannot be written to is told apart by what it no longer says."""
        self._out += data
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ValueError):
            while self._out:
                self._out = self._out[os.write(self._streams[0].fileno(), self._out) :]

    def read(self) -> list[dict[str, Any]]:
        """What the agent has said since; `status` is there once ssh has ended and all is read."""
        ended = self._process.poll()
        self._rest, lines = _lines(self._streams[1].fileno(), self._rest)
        self._err_rest, complaints = _lines(self._streams[2].fileno(), self._err_rest)
        if ended is not None:
            complaints += [self._err_rest] if self._err_rest else []
            self.status, self._err_rest = ended, b""
        self.err = [*self.err, *(line.decode(errors="replace") for line in complaints)][-_KEPT_LINES:]
        found: list[dict[str, Any]] = []
        for line in lines:
            text = line.decode(errors="replace")
            at = text.find(self._mark)  # a shell may have printed half a line before
            if at < 0:
                self.err = [*self.err, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)][-_KEPT_LINES:]
                continue
            with contextlib.suppress(ValueError):
                said = json.loads(text[at + len(self._mark) :])
                if isinstance(said, dict):
                    found.append(said)  # pyright: ignore[reportUnknownArgumentType]
        if found:
            self.heard = time.monotonic()
        return found

    @property
    def silence(self) -> float:
        """Seconds since the agent has said anything."""
        return time.monotonic() - self.heard

    def close(self) -> None:
        """The agent ends all that it has started when its stdin ends."""
        with contextlib.suppress(OSError):
            self._streams[0].close()

    def end(self, until: float) -> None:
        """Wait for its end, and no longer than `until` (monotonic)."""
        while self.status is None and time.monotonic() < until:
            self.read()
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


def _lines(descriptor: int, rest: bytes) -> tuple[bytes, list[bytes]]:
    """What is there, in whole lines, and the beginning of the next."""
    with contextlib.suppress(BlockingIOError, OSError, ValueError):
        while data := os.read(descriptor, 1 << 16):
            rest += data
            if len(rest) > _MOST_LINE:
                break
    *lines, rest = rest.split(b"\n")
    return rest[-_MOST_LINE:], lines


def header(project: str, run: str, **more: Any) -> dict[str, Any]:
    """What an agent has to know to begin: where its code is, and which run it is for."""
    return {"project": project, "run": run, **more}


def closed(links: Sequence[Link], seconds: float) -> None:
    """All of them, and what they have started; after `seconds` whoever is left is not waited for."""
    for link in links:
        link.close()
    until = time.monotonic() + seconds
    for link in links:
        link.end(until)


def python_of(given: object, host: str, default: str) -> str:
    """`cluster.python`: of all hosts, or of each by its name."""
    if isinstance(given, Mapping):
        return str(given.get(host, default))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return str(given) if given else default
