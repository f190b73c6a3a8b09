"""The cluster as a whole: up, down, what is alive, what slurmctld thinks of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import accounting
import files
from daemons import start_controller, start_munge, stop_controller, until
from node import Node, bridge, devices
from processes import end, inside, marked, network_of, other_clusters
from state import CONF, LOGS, MOUNTS, STATE, Failed, Misused, Shape, daemon_path, load, names, run, save

_PROGRAMS = {
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "munged": "munge",
    "ip": "iproute2",
    "nsenter": "util-linux",
}


def check_machine() -> None:
    if missing := sorted({package for program, package in _PROGRAMS.items() if not daemon_path(program)}):
        raise Failed(f"not installed: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise Failed("network namespaces and slurmd need root: sudo cluster …")


def states() -> dict[str, str]:
    """What slurmctld says of each node: idle, mixed, down*, … Empty where it gives no answer."""
    lines = run("sinfo", "--noheader", "--Node", "--format=%N %T", check=False).splitlines()
    return dict(line.split() for line in lines)


def usable(node: str) -> bool:
    return states().get(node) in ("idle", "mixed", "allocated")


def restart_controller(shape: Shape) -> None:
    """Also waits until it knows the nodes again, whose state is unknown until they have answered."""
    start_controller()
    nodes = [Node(name) for name in names(shape["nodes"])]
    asked = [node.name for node in nodes if node.alive() and node.connected()]

    def known() -> bool:
        answer = states()
        return not any(answer.get(name, "unknown").startswith("unk") for name in asked)

    until(known, 20, lambda: f"slurmctld knows only {states()}", LOGS / "slurmctld.log")


def wait_until_usable(node: str) -> None:
    until(lambda: usable(node), 30, lambda: f"{node} is {states().get(node)}", LOGS / "slurmctld.log", LOGS / f"{node}.log")


def write_conf(shape: Shape) -> None:
    CONF.write_text(files.slurm(shape))
    (STATE / "gres.conf").write_text(files.gres(shape))


def daemons_of(shape: Shape) -> tuple[str, ...]:
    return ("munged", *(accounting.DAEMONS if shape["accounting"] else ()), "slurmctld")


def alive(shape: Shape) -> bool:
    nodes = [Node(name) for name in names(shape["nodes"])]
    return all(marked(name) for name in daemons_of(shape)) and all(node.alive() and node.connected() for node in nodes)


def up(nodes: int | None, with_accounting: bool) -> str:
    """Starts what is not there. What an `up` that did not reach its end has left is removed first."""
    if with_accounting:
        accounting.check()
    if others := other_clusters():
        raise Failed(f"another cluster is up: DEVCLUSTER_STATE={others.pop()} cluster down")
    try:
        known = load()
    except Failed:
        down()
        return _start({"nodes": nodes or 3, "accounting": with_accounting, "settings": {}})
    if (nodes or known["nodes"]) != known["nodes"] or with_accounting > known["accounting"]:
        raise Failed(f"up already with {known['nodes']} nodes, accounting {'on' if known['accounting'] else 'off'}: cluster down first")
    if alive(known) and all(usable(name) for name in names(known["nodes"])):
        return "is up already"
    return _start(known)


def _start(shape: Shape) -> str:
    begun = time.monotonic()
    for directory in (LOGS, STATE / "controller", STATE / "gpu", MOUNTS):
        directory.mkdir(exist_ok=True)
    for n in range(files.GPUS):
        with contextlib.suppress(FileExistsError):
            # a second /dev/null: SLURM sets CUDA_VISIBLE_DEVICES for devices only, not for plain files
            os.mknod(STATE / "gpu" / f"gpu{n}", 0o020666, os.makedev(1, 3))
    if not os.path.ismount(MOUNTS):
        run("mount", "--bind", MOUNTS, MOUNTS)
        run("mount", "--make-shared", MOUNTS)
    write_conf(shape)
    (STATE / "hosts").write_text(files.hosts(shape, "full"))
    (STATE / "resolv.conf").write_text(files.RESOLVER)
    bridge()
    start_munge()
    if shape["accounting"]:
        accounting.start()
    start_controller()
    for name in names(shape["nodes"]):
        heal(Node(name), wait=False)
    for name in names(shape["nodes"]):
        wait_until_usable(name)
    save(shape)
    return f"{shape['nodes']} nodes are idle after {time.monotonic() - begun:.1f} s"


def reconfigure(shape: Shape) -> None:
    """Raises Misused, and changes nothing, where SLURM cannot read the new file: slurmctld would end on it."""
    candidate = STATE / "slurm.conf.new"
    candidate.write_text(files.slurm(shape))
    try:
        run("env", f"SLURM_CONF={candidate}", "scontrol", "show", "hostnames", "node1")
    except Failed as error:
        raise Misused(str(error).partition("error: ")[2]) from None
    finally:
        candidate.unlink()
    write_conf(shape)
    save(shape)
    if marked("slurmctld"):
        run("scontrol", "reconfigure")


def heal(node: Node, wait: bool = True) -> None:
    node.create()
    node.connect(True)
    node.start()
    if (states().get(node.name) or "").startswith(("down", "drain", "fail")):
        run("scontrol", "update", f"NodeName={node.name}", "State=RESUME", check=False)
    if wait:
        wait_until_usable(node.name)


def down() -> None:
    """Removes everything that carries our mark or lives in a node, in an order in which nothing restarts or reappears."""
    pins = {network_of(path) for path in STATE.glob("node*/net")}
    held = {network_of(f"/proc/{pid}/ns/net") for pid in marked()}
    networks = {network for network in pins | held if network and network != network_of("/proc/self/ns/net")}
    with contextlib.suppress(Failed):
        stop_controller()
    end(lambda: inside(networks))
    end(marked, signal.SIGTERM)
    for mount in reversed(_mounts()):
        run("umount", "--lazy", mount, check=False)
    if left := _mounts():
        raise Failed(f"what is mounted at {left[0]} would be deleted with the directory: umount it")
    if not other_clusters():
        for device in devices():
            run("ip", "link", "delete", device, check=False)
    for path in STATE.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mounts() -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{STATE}/")]
