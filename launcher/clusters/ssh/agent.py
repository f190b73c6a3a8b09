"""A host's end of the connection: it says what is there, starts the node's processes when it is told to, and ends all of them with itself.

It ends when its stdin does, and when nothing has come through it for as long as the header says: a network that is gone closes nothing.
All that its processes have started becomes its own child when they end (a subreaper), so that nothing gets away from it; were it killed,
they die by the death signal of each (launcher/node/deathsig.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from launcher.clusters.ssh import reach, seen
from launcher.clusters.ssh.seats import Seats

if TYPE_CHECKING:
    import subprocess

BEAT_SECONDS = 2.0
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of linux/prctl.h."""
_END_SECONDS = 10.0


def main(header: dict[str, Any]) -> int:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(int(header["umask"], 8))
    if "detach" in header:
        from launcher.clusters.ssh.detached import become

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        print(header["mark"] + json.dumps({"detached": become(header)}), flush=True)
        return 0
    _adopt()
    agent = Agent(header)
    try:
        agent.work()
    except (SystemExit, OSError):
        pass
    finally:
        agent.end()
    return 0


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


class Agent:
    def __init__(self, header: dict[str, Any]) -> None:
        self._header, self._mark = header, str(header["mark"])
        self._seats = Seats(str(header["device"]), 0)
        self._meeting: reach.Meeting | None = None
        self._node: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def work(self) -> None:
        hello = seen.hello(self._header)
        self._seats = Seats(str(self._header["device"]), hello["devices"])
        self._say(hello=hello)
        heard = beat = time.monotonic()
        while True:
            ready, _, _ = select.select([0, *self._listening()], [], [], 0.2)
            now = time.monotonic()
            if 0 in ready:
                data = os.read(0, 1 << 16)
                if not data:
                    return
                heard = now
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))
            if self._meeting is not None:
                self._meeting.greet(ready)
            if now - beat > BEAT_SECONDS:
                beat = now
                self._say(beat=1)
            if now - heard > float(self._header["watch"]):
                return  # whoever started this does not know of it any more
            self._look()

    def _listening(self) -> list[int]:
        return [] if self._meeting is None else [self._meeting.fileno()]

    def _obey(self, told: dict[str, Any]) -> None:
        do = told["do"]
        if do == "listen":
            self._meeting = reach.Meeting(told["port"], told["token"])
            self._say(listening=self._meeting.port, addresses=reach.addresses(told["interface"]), problem=self._meeting.problem)
        elif do == "reach":
            self._say(reached=reach.reached(told["addresses"], told["port"], told["token"], told["seconds"]))
        elif do == "take":
            self._say(taken=self._seats.take(told["count"]), busy=self._seats.busy)
        elif do == "leave":
            self._seats.leave()
        elif do == "start":
            self._start(told)

    def _start(self, told: dict[str, Any]) -> None:
        from launcher.clusters import submit

        if self._meeting is not None:
            self._meeting.close()
            self._meeting = None
        environment = {**os.environ, **told["env"], **self._seats.environment()}
        for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
            environment.pop(name, None)
        self._node = submit.as_node(told["argv"], environment, Path(told["log"]))

    def _look(self) -> None:
        if self._node is not None and (status := self._node.poll()) is not None:
            self._node = None
            self._say(ended=status)

    def _say(self, **what: Any) -> None:
        data = (self._mark + json.dumps(what) + "\n").encode()
        while data:
            data = data[os.write(1, data) :]

    def end(self) -> None:
        """No process of it stays behind."""
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        until = time.monotonic() + _END_SECONDS
        while (left := descendants(os.getpid())) and time.monotonic() < until:
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            time.sleep(0.01)


def _adopt() -> None:
    """What is started here and loses its parent becomes ours."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1)


def descendants(root: int) -> list[int]:
    """Of a process, by /proc; empty where there is none."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            told = (entry / "stat").read_bytes()
            parents.setdefault(int(told[told.rindex(b")") + 2 :].split()[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found
