"""Asking hosts who they are and nothing more: how many devices each has, and whether those that were lost are back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from launcher import PROJECT
from launcher.clusters.protocol import Fewer
from launcher.clusters.screen import tell
from launcher.clusters.ssh import preflight
from launcher.clusters.ssh.hosts import Host
from launcher.clusters.ssh.link import Link, closed, header, python_of
from launcher.clusters.ssh.words import refusal
from launcher.errors import ClusterError
from launcher.plan import Plan

if TYPE_CHECKING:
    from launcher.clusters.ssh import Ssh

_AGAIN_SECONDS = 5.0
_WITHOUT_SECONDS = 30.0
"""That a host may be away, rebooting say, before a run that can do without goes on without."""


def devices(names: Sequence[str], device: str, pythons: Sequence[str], answer: float, config: str | None) -> dict[str, int]:
    """Of each host. Raises ClusterError that names those that do not answer."""
    found, problems = _asked(names, device, pythons, str(PROJECT), answer, config)
    if problems:
        raise ClusterError("; ".join(f"{name}: {why}" for name, why in problems.items()))
    return found


def wait(cluster: Ssh, plan: Plan, is_asked: Callable[[], bool]) -> None:
    """Until all hosts are back, or somebody has asked to stop. Raises Fewer where the run shall go on without those that are not,
    ClusterError where none of both comes in time."""
    hosts = cluster.slotted()
    names, pythons = [host.name for host in hosts], [python_of(cluster.python, host.name, plan.python) for host in hosts]
    began, told = time.monotonic(), ""
    while not is_asked():
        found, problems = _asked(names, plan.world.device, pythons, plan.project, cluster.answer, cluster.ssh_config)
        if not problems:
            return
        said = "; ".join(f"{name}: {why}" for name, why in problems.items())
        gone = time.monotonic() - began
        if cluster.min_hosts is not None and len(found) >= cluster.min_hosts and gone > min(_WITHOUT_SECONDS, cluster.patience):
            raise Fewer(said, _words([host for host in hosts if host.name in found]))
        if gone > cluster.patience:
            raise ClusterError(f"{said}; waited for {cluster.patience} s (cluster.patience); bring it back, and resume the run")
        if said != told:
            told = said
            tell(f"launcher: waiting for {said}")
        until = time.monotonic() + _AGAIN_SECONDS
        while time.monotonic() < until and not is_asked():
            time.sleep(0.1)


def _words(hosts: Sequence[Host]) -> list[str]:
    """As `resume` takes them."""
    listed = ",".join(f"{{{host.name}:{host.slots}}}" for host in hosts)
    return [f"cluster.hosts=[{listed}]", "cluster.hostfile=null", "cluster.processes_per_node=auto"]


def _asked(
    names: Sequence[str], device: str, pythons: Sequence[str], project: str, answer: float, config: str | None
) -> tuple[dict[str, int], dict[str, str]]:
    told = header(project, "", place="", umask="077", device=device, watch=answer + 5)
    links = [Link(Host(name), number, pythons[number], answer, config, told) for number, name in enumerate(names)]
    try:
        found = preflight.answers(links, "hello", time.monotonic() + answer)
        counts = {link.host.name: int(found[link.number].said["hello"]["devices"]) for link in links if link.number in found}
        problems = {
            link.host.name: refusal(link.host.name, link.status, link.err, link.python) for link in links if link.number not in found
        }
        return counts, problems
    finally:
        closed(links, 2.0)
