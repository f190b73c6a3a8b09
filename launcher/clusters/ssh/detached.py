"""A run that nobody stays with: `python -m launcher resume RUN` on the first host, in a session of its own that survives a logout.

The packages that this user's commands have been told to trust are told to the account there too: it is the same person's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from launcher.clusters.ssh import preflight
from launcher.clusters.ssh.link import Link, closed, header, python_of
from launcher.clusters.ssh.supervise import own_environment
from launcher.clusters.ssh.words import refusal
from launcher.errors import ClusterError
from launcher.rundir import lock
from launcher.rundir.rundir import RunDir, umask_of
from launcher.rundir.tail import Tail
from launcher.trust import noted

if TYPE_CHECKING:
    from launcher.clusters.ssh import Ssh

THERE = "LAUNCHER_DETACHED"
"""Set where the one is that stays."""
_BEGINS_SECONDS = 60.0
"""For the hosts to be looked at from there, and the first node to begin."""


def start(cluster: Ssh, here: RunDir) -> None:
    """Hand the run over to the first host, wait until its nodes begin, and say what to type. Raises ClusterError."""
    lock.refuse_if_held(here.launcher)
    plan, host = here.read_plan(), cluster.slotted()[0]
    before, said = here.newest_attempt(), Tail(here.log, from_end=True)
    python = python_of(cluster.python, host.name, plan.python)
    usual = {"umask": f"{umask_of(here):o}", "device": plan.world.device, "watch": cluster.watch}
    own = {**own_environment(here), THERE: "1"}
    more = {"detach": ["-m", "launcher", "resume", str(here.path)], "env": own, "log": str(here.log), "trust": noted.words(noted.TRUSTED)}
    told = header(plan.project, str(here.path), place=str(here.path), **usual, **more)
    link = Link(host, 0, python, cluster.answer, cluster.ssh_config, told)
    try:
        found = preflight.answers([link], "detached", time.monotonic() + cluster.answer)
        if 0 not in found:
            raise ClusterError(f"{host.name}: {refusal(host.name, link.status, link.err, python)}")
    finally:
        closed([link], 2.0)
    lines: list[str] = []
    until = time.monotonic() + _BEGINS_SECONDS
    while time.monotonic() < until and not _begins(here, before):
        lines += said.lines()
        over = [line for line in lines if line.startswith("launcher: ") and not line.startswith("launcher: warning")]
        if over and not lock.is_held(here.launcher):  # else it lives, and goes on
            raise ClusterError(f"on {host.name}: {over[-1].removeprefix('launcher: ')}")
        time.sleep(0.1)
    here.log_event("detached", host=host.name)
    print(f"it goes on on {host.name}; watch it with: python -m launcher logs {here} -f (its launcher writes into {here.log.name})")


def _begins(here: RunDir, before: int | None) -> bool:
    newest = here.newest_attempt()
    return newest is not None and newest != before and here.agent_log(newest).exists()


def become(told: dict[str, Any]) -> int:
    """On the first host: the launcher in a session of its own. Its pid, or raises OSError."""
    child = os.fork()
    if child:
        return child
    with contextlib.suppress(BaseException):
        os.setsid()
        for word in told["trust"]:
            noted.note(noted.TRUSTED, word)
        descriptor = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, source in ((0, nothing), (1, descriptor), (2, descriptor)):
            os.dup2(source, number)
        path = os.pathsep.join(filter(None, (told["project"], told["env"].get("PYTHONPATH"))))
        environment = {**os.environ, **told["env"], "PYTHONPATH": path}
        os.execve(sys.executable, [sys.executable, *told["detach"]], environment)
    os._exit(127)
