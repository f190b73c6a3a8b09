"""A node: a network of its own, a host name, a view of the file system, and a slurmd in it.

A `sleep` holds the namespaces, so that they outlive slurmd. A file in STATE holds the network: by it all processes of the node are found.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from daemons import tail
from processes import end, inside, marked_environment, network_of
from state import BRIDGE, CONF, HEAD, LOGS, STATE, Failed, address, daemon_path, run


class Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.home = STATE / name
        self.pin = self.home / "net"
        self.device = f"ldc{name.removeprefix('node')}"

    def processes(self, command: str | None = None) -> list[int]:
        network = network_of(self.pin)
        return inside({network}, command) if network else []

    def _holder(self) -> int | None:
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.home / "holder.pid").read_text())
            return pid if pid in self.processes("sleep") else None
        return None

    def connected(self) -> bool:
        return re.search(r"[<,]UP[,>]", run("ip", "link", "show", self.device, check=False)) is not None

    def alive(self) -> bool:
        return bool(self._holder() and self.processes("slurmd"))

    def create(self) -> None:
        if self._holder():
            return
        end(self.processes)
        run("umount", "--lazy", self.pin, check=False)
        run("ip", "link", "delete", self.device, check=False)
        shutil.rmtree(self.home, ignore_errors=True)
        (self.home / "spool").mkdir(parents=True)
        self.pin.touch()
        run("unshare", f"--net={self.pin}", "true")
        run("ip", "link", "add", self.device, "type", "veth", "peer", "name", "eth0", "netns", self.pin)
        run("ip", "link", "set", self.device, "master", BRIDGE, "up")
        for words in ("link set lo up", f"address add {address(self.name)}/24 dev eth0", "link set eth0 up"):
            run("nsenter", f"--net={self.pin}", "ip", *words.split())
        self._hold()

    def _hold(self) -> None:
        script = f"""set -e
            hostname {self.name}
            mount --bind {STATE}/hosts /etc/hosts
            mount --bind {STATE}/resolv.conf /etc/resolv.conf
            exec sleep infinity"""
        unshare = ["unshare", "--uts", "--mount", "--propagation", "slave"]
        with (LOGS / f"{self.name}.log").open("ab") as log:
            holder = subprocess.Popen(
                ["nsenter", f"--net={self.pin}", *unshare, "sh", "-c", script],
                env=marked_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.home / "holder.pid").write_text(str(holder.pid))
        deadline = time.monotonic() + 5
        while not self._holder():
            if holder.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.name}: its namespaces could not be made: {tail(LOGS / f'{self.name}.log')}")
            time.sleep(0.01)

    def start(self) -> None:
        if not self.processes("slurmd"):
            log = LOGS / f"{self.name}.log"
            with log.open("ab") as stream:
                done = subprocess.run(
                    self.enter(daemon_path("slurmd"), "-f", str(CONF)),
                    env=marked_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    check=False,
                )
            if done.returncode:
                raise Failed(f"slurmd of {self.name} does not start\n{tail(log)}")

    def enter(self, *argv: str, directory: str = "/") -> list[str]:
        """argv so that it runs on the node. Raises Failed if the node's namespaces are gone."""
        holder = self._holder()
        if holder is None:
            raise Failed(f"{self.name} is down: cluster up")
        return ["nsenter", f"--target={holder}", "--net", "--uts", "--mount", f"--wd={directory}", "--", *argv]

    def connect(self, on: bool) -> None:
        run("ip", "link", "set", self.device, "up" if on else "down")

    def kill(self) -> None:
        end(lambda: self.processes("slurmd"))

    def hide(self, command: str, hidden: bool) -> None:
        """An overlay with a white-out per hidden command lies over each directory of PATH that has it: nothing finds it any more."""
        for directory in _directories_with(command):
            layer = self.home / "hidden" / str(directory).strip("/").replace("/", "-")
            run(*self.enter("umount", "--lazy", str(directory)), check=False)
            layer.mkdir(parents=True, exist_ok=True)
            (layer / command).unlink(missing_ok=True)
            if hidden:
                os.mknod(layer / command, 0o020000, os.makedev(0, 0))
            if any(layer.iterdir()):
                run(*self.enter("mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={layer}:{directory}", str(directory)))


def _directories_with(command: str) -> list[Path]:
    places = [*os.environ.get("PATH", "").split(":"), "/usr/local/bin", "/usr/bin", "/usr/sbin"]
    found = {Path(place).resolve() for place in places if place and (Path(place) / command).exists()}
    if "/" in command or not found:
        raise Failed(f"{command}: no command of this name on PATH")
    return sorted(found)


def devices() -> list[str]:
    """Network devices of this program. Not from /sys, which in a container may show the host's."""
    return [name for _, name in socket.if_nameindex() if name.startswith("ldc")]


def bridge() -> None:
    if BRIDGE not in devices():
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{HEAD}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
