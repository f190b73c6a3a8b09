"""One attempt on machines without a scheduler: connect to all, look at them, start the nodes, stay until all have ended.

It is a process of its own, which job.sh becomes, as torchrun is on one machine: whoever stays with the run (launcher/clusters/attend.py)
shows the first rank, passes stops on by the STOP file, and kills this one where a person has no more patience. Then ssh ends with it, and
each host ends what it has started.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from launcher.clusters.ssh import preflight
from launcher.clusters.ssh.hosts import Host
from launcher.clusters.ssh.link import Link, closed, header
from launcher.clusters.ssh.preflight import Problems
from launcher.code import code_hash
from launcher.errors import ClusterError, LaunchError, RankLost
from launcher.node import blame
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir, read_text, umask_of, write_atomic

GRACE_SECONDS = 10.0
"""From the first node that fails to the end of the others, which may know more of why."""
_BEAT_SECONDS = 2.0
CLOSE_SECONDS = 12.0
"""For all hosts to end what they have started."""
_HANDED_ON = ("PYTHONPATH", "LAUNCHER_KEY", "LAUNCHER_KEY_FILE", "LAUNCHER_DEBUG")
LOST = "HostLost"
"""The exception in error.json of a host that does not answer any more: nothing says that it would happen again."""


class Asked(NamedTuple):
    """Options, as the job script has them."""

    hosts: Sequence[Host]
    """Each with its number of processes."""
    pythons: Sequence[str]
    device: str
    interface: str | None
    port: int | None
    busy: str
    watch: float
    answer: float
    config: str | None


def supervise(run: RunDir, attempt: int, asked: Asked) -> int:
    """Returns the exit status of the node that failed first, 0 where all came to their end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    plan = run.read_plan()
    os.umask(umask_of(run))
    place = run.attempt(attempt)
    nonce = secrets.token_hex(16)
    links: list[Link] = []
    try:
        write_atomic(place / "nonce", nonce)
        told = header(plan.project, str(run.path), place=str(place), nonce=nonce, umask=plan.umask, device=asked.device, watch=asked.watch)
        links += [Link(host, number, asked.pythons[number], asked.answer, asked.config, told) for number, host in enumerate(asked.hosts)]
        try:
            start(run, plan, attempt, asked, links)
        except Problems as problems:
            raise ClusterError(_refused(problems, len(links))) from problems
        return _watch(run, attempt, asked, links)
    except LaunchError as error:
        blame.leave(run, attempt, 0, None, **_said(error, os.uname().nodename, error.exit_code), refused=True)
        return error.exit_code
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        closed(links, CLOSE_SECONDS)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _tell(what: str) -> None:
    with contextlib.suppress(OSError):
        print(f"launcher: {what}", file=sys.stderr, flush=True)


def _refused(problems: Problems, hosts: int) -> str:
    few = f"{len(problems.found)} of {hosts} hosts cannot be used: " if hosts > 1 else ""
    return f"{few}{problems}"


def _said(error: Exception, host: str, code: int, kind: str = "") -> dict[str, Any]:
    """A report of no rank's (launcher/node/blame.py)."""
    told = {"rank": 0, "host": host, "step": 0, "exception": kind or type(error).__name__, "message": str(error)}
    return {**told, "exit_code": code, "traceback": None}


def start(run: RunDir, plan: Plan, attempt: int, asked: Asked, links: Sequence[Link]) -> None:
    """Look at all of them, and start their nodes. Raises Problems."""
    processes = [int(host.slots or 1) for host in asked.hosts]
    project = Path(plan.project)
    code = dict(code_hash.of_packages(project, (), project)).get("launcher", "")  # as it is now: it may have been edited
    preflight.greet(links, asked.device, processes, code, asked.answer)
    address, port = preflight.meet(links, asked.interface, asked.port) if len(links) > 1 else ("127.0.0.1", 0)
    if asked.busy != "share":
        preflight.take(links, processes, asked.busy == "wait", _tell, run.stop.exists)
    place = run.attempt(attempt)
    write_atomic(place / "meeting.key", secrets.token_hex(32))
    (place / "meeting.key").chmod(0o600)
    names = ",".join(host.name for host in asked.hosts)
    own = own_environment(run)
    for link, count in zip(links, processes, strict=True):
        environment = {
            **own,
            "LAUNCHER_ATTEMPT": f"{attempt:03d}",
            "LAUNCHER_NODE": str(link.number),
            "LAUNCHER_HOST": link.host.name,
            "LAUNCHER_HOSTS": names,
            "LAUNCHER_HEAD": address,
            "LAUNCHER_PORT": str(port),
            "LAUNCHER_PROCESSES": str(count),
            "LAUNCHER_PYTHON": link.python,
            **({"LAUNCHER_INTERFACE": asked.interface} if asked.interface else {}),
        }
        link.send("start", argv=["bash", "-p", str(run.script)], env=environment, log=str(run.agent_log(attempt, link.number)))


def own_environment(run: RunDir) -> dict[str, str]:
    """What the hosts' shells do not have: where this one finds packages, what the config calls `${oc.env:NAME}`, keys. It goes through the
    connection and is written nowhere."""
    named = re.findall(r"\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)", read_text(run.config))
    return {name: os.environ[name] for name in (*_HANDED_ON, *named) if name in os.environ}


def _watch(run: RunDir, attempt: int, asked: Asked, links: Sequence[Link]) -> int:
    ended: dict[int, int] = {}
    failed: float | None = None
    status = 0
    beat = time.monotonic()
    for said in preflight.heard(links, float("inf"), lambda: len(ended) == len(links)):
        now = time.monotonic()
        if now - beat > _BEAT_SECONDS:
            beat = now
            for link in links:
                link.send("beat")
        for link, message in said:
            if "ended" in message:
                ended[link.number] = code = int(message["ended"])
                if code and failed is None:
                    failed, status = now, code
        for link in links:
            if link.number not in ended and (link.status is not None or link.silence > asked.watch):
                if failed is None or link.status is None:
                    _lost(run, attempt, link, asked.watch)
                    return 1
                ended[link.number] = link.status or 1
        if failed is not None and now - failed > GRACE_SECONDS:
            break
    return status


def _lost(run: RunDir, attempt: int, link: Link, watch: float) -> None:
    """What the ranks of the others say, and said first, came of it."""
    said = next((line.strip()[:160] for line in reversed(link.err) if line.strip()), f"status {link.status}")
    how = f"its connection ended ({said})" if link.status is not None else f"nothing came from it for {watch:.0f} s"
    told = _said(RankLost(f"host {link} was lost: {how}"), link.host.name, RankLost.exit_code, LOST)
    write_atomic(run.error(attempt), json.dumps({"time": time.time(), **told}, indent=2))
