"""What a compute node may lack, taken away: the run trains with the world it was promised, or says in one line why it cannot."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from batch_jobs import Batch
from devcluster import DevCluster
from processes import events, wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]

NODES = ("node2", "node3")
TWO_NODES = ("cluster.nodes=2", "+cluster.sbatch.nodelist='node[2-3]'", "+cluster.sbatch.hold=true", "train.steps=2")
LISTEN = """
import socket, sys
held = []
for word in sys.argv[1:]:
    address, _, port = word.rpartition("/")
    held.append(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
    if ":" in address:
        held[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    held[-1].bind((address, int(port)))
    held[-1].listen()
print("ready", flush=True)
sys.stdin.read()
"""
"""Holds the ports it is given until its stdin ends."""

Break = Callable[[DevCluster, int], AbstractContextManager[None]]


@contextlib.contextmanager
def without(cluster: DevCluster, *commands: str) -> Iterator[None]:
    try:
        for node in NODES:
            for command in commands:
                cluster.hide(node, command)
        yield
    finally:
        for node in NODES:
            for command in commands:
                cluster.show(node, command)


@contextlib.contextmanager
def knowing(cluster: DevCluster, kind: str) -> Iterator[None]:
    """Whom /etc/hosts names."""
    cluster.hosts(kind)
    try:
        yield
    finally:
        cluster.hosts("full")


@contextlib.contextmanager
def listening(cluster: DevCluster, *places: str) -> Iterator[None]:
    holder = cluster.start(NODES[0], sys.executable, "-c", LISTEN, *places)
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        yield
    finally:
        holder.kill()
        holder.communicate()


def port_of(job: int) -> int:
    """Where launcher/clusters/slurm/slurm.sh begins to look."""
    return 20_000 + job * 7 % 20_000


BREAKS: dict[str, Break] = {
    "no scontrol, no sacct": lambda cluster, job: without(cluster, "scontrol", "sacct"),
    "no name in /etc/hosts": lambda cluster, job: knowing(cluster, "none"),
    "names that are loopback": lambda cluster, job: knowing(cluster, "loopback"),
    "its port and torchrun's own": lambda cluster, job: listening(cluster, f"0.0.0.0/{port_of(job)}", "0.0.0.0/29500"),
    "its port, on loopback alone": lambda cluster, job: listening(cluster, f"127.0.0.1/{port_of(job)}", f"::1/{port_of(job) + 1}"),
}


def train(batch: Batch, broken: Break, *words: str) -> tuple[str, Path, dict[str, object]]:
    """Submitted and held, the world broken, released, to its end: its log, its directory and its summary."""
    run = batch.submit(*TWO_NODES, *words)
    job = batch.job(run)
    with broken(batch.cluster, int(job)):
        batch.cluster.slurm("scontrol", "release", job)
        wait_for(lambda: batch.state(run) not in ("PENDING", "RUNNING", "CONFIGURING"), 120, f"the end of {run}")
    batch.wait_until_over(run)
    log = (run / "job.log").read_text(errors="replace")
    return log, run, json.loads((run / "summary.json").read_text()) if (run / "summary.json").exists() else {}


@pytest.mark.parametrize("name", BREAKS)
def test_it_trains_with_the_whole_world(name: str, batch: Batch) -> None:
    log, run, summary = train(batch, BREAKS[name])
    assert summary.get("state") == "done", log
    assert summary["world"] == "2 nodes x 1 process on cpu"
    assert "meeting at 10.213.0.12:" in log
    assert [event["attempt"] for event in events(run, "attempt")] == [0]
    assert {path.name for path in (run / "attempts" / "000").glob("rank_*.log")} == {"rank_0.log", "rank_1.log"}


def test_an_interface_that_is_not_there_is_one_line(batch: Batch) -> None:
    log, _, summary = train(batch, lambda cluster, job: contextlib.nullcontext(), "cluster.interface=ib9")
    assert summary == {}, log
    (line,) = [line for line in log.splitlines() if "launcher: attempt 000" in line]
    assert "attempt 000 failed" in line
    assert "cluster.interface=ib9" in line
