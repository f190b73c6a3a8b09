"""Machines without a scheduler, by OpenSSH alone: the options, and what a run's life there needs beside one on this machine."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.clusters import machine
from launcher.clusters.attended import Attended
from launcher.clusters.env import check_env
from launcher.clusters.ssh.hosts import Host, read
from launcher.clusters.ssh.link import python_of
from launcher.clusters.texts import check_text, check_whole
from launcher.devices import CPU, CUDA, XPU, check_trusted
from launcher.errors import ClusterError, ConfigError, NoScheduler
from launcher.plan import Plan, World

if TYPE_CHECKING:
    from launcher.compose.freeze import Frozen
    from launcher.rundir.rundir import RunDir

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,30}")


@dataclass(frozen=True)
class Ssh(Attended):
    """Hosts that see one file system, and one Python environment, at the same paths or at others (`python`)."""

    hosts: Any = ()
    """As ssh knows them: names, addresses, aliases of ~/.ssh/config. The first is where the others meet. `{gpu1: 8}` has its own number of
    processes."""
    hostfile: str | None = None
    """Instead: a file with a line for each, `gpu1 slots=8`, as DeepSpeed and MPI have it."""
    processes_per_node: int | str = "auto"
    """Where a host has no slots of its own. auto: one on a CPU, else as many as each host shows GPUs."""
    device: str = CUDA
    """cuda | xpu | cpu."""
    cpus_per_process: int | None = None
    """Threads of each; null: the CPUs of the machine where it is started, shared out, for the hosts' are not known there."""
    trusted_devices: Sequence[str] = ()
    """Names of the devices that may compute (* and ? stand for other signs), or UUIDs, or how those begin; empty: all."""
    python: Any = None
    """The interpreter there, of all hosts or by host: {gpu2: /opt/venv/bin/python}; null: at the same path as here."""
    max_restarts: int = 0
    """How often torchrun starts a node's processes again within one attempt."""
    requeue: bool = True
    """Start another attempt after a host was lost or a rank was killed or hung."""
    patience: int = 600
    """Seconds that a lost host is waited for before the run ends, which can be resumed then."""
    min_hosts: int | None = None
    """Go on without those that are lost where at least so many are left; the samples of each update stay the same."""
    detach: bool = False
    """Return at once: what stays with the run is on the first host then, and reaches the others from there."""
    busy: str = "refuse"
    """refuse | wait | share: where another run of the launcher has a host's devices. share takes no locks."""
    interface: str | None = None
    """Network interface between the hosts, where they do not reach each other by the usual one: ib0."""
    port: int | None = None
    """On the first host, where the others meet; null: a free one of 20000 to 31999."""
    env: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    """Exported on the hosts: NCCL_IB_HCA and the like."""
    env_force: list[str] = field(default_factory=list[str])
    """Names in `env` that can change which code runs (PATH, LD_LIBRARY_PATH, PYTHONPATH), and shall."""
    watch: int = 20
    """Seconds without a word from a host after which it is lost."""
    answer: int = 20
    """Seconds for all hosts to answer before anything starts; one whose address does not within 5 is not waited for any longer."""
    ssh_config: str | None = None
    """Of ssh, in place of ~/.ssh/config."""

    grace: ClassVar[float] = 15.0
    told: ClassVar[Mapping[str, str]] = {"number": "LAUNCHER_NODE", "name": "LAUNCHER_HOST", "nodes": "LAUNCHER_HOSTS"}

    def world(self) -> World:
        """Raises ConfigError that names the key; ClusterError where hosts have to be asked, and do not answer."""
        hosts = self.found()
        if self.device not in (CUDA, XPU, CPU):
            raise ConfigError(f"cluster.device={self.device} cannot be on hosts that are not seen from here; type {CUDA}, {XPU} or {CPU}")
        check_trusted(self.trusted_devices)
        for key, low in (("max_restarts", 0), ("patience", 0), ("watch", 5), ("answer", 1)):
            check_whole(key, getattr(self, key), low)
        if self.cpus_per_process is not None:
            check_whole("cpus_per_process", self.cpus_per_process, 1)
        if self.min_hosts is not None:
            check_whole("min_hosts", self.min_hosts, 1)
            if self.min_hosts > len(hosts):
                raise ConfigError(f"cluster.min_hosts={self.min_hosts}: there are {len(hosts)} hosts; type at most {len(hosts)}, or null")
        if self.port is not None and not (isinstance(self.port, int) and 1024 <= self.port < 65_536):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"cluster.port={self.port} cannot be; type one from 1024 to 65535, or null")
        if self.busy not in ("refuse", "wait", "share"):
            raise ConfigError(f"cluster.busy={self.busy} cannot be; type refuse, wait or share")
        if self.interface is not None and not _INTERFACE.fullmatch(str(self.interface)):
            raise ConfigError(f"cluster.interface={self.interface!r} cannot be; type the name of an interface, such as ib0")
        _check_python(self.python, [host.name for host in hosts])
        if self.ssh_config is not None and not Path(self.ssh_config).is_file():
            raise ConfigError(f"cluster.ssh_config={self.ssh_config}: there is no such file; type a path, or null for ~/.ssh/config")
        check_env(self.env, self.env_force)
        counts = tuple(host.slots or 0 for host in self.slotted())
        return World(len(hosts), max(counts), self.device, counts if len(set(counts)) > 1 else ())

    def found(self) -> list[Host]:
        """Raises ConfigError."""
        return read(self.hosts, self.hostfile)

    def slotted(self) -> list[Host]:
        """Each with its number of processes. Raises ConfigError; ClusterError where they are asked for it and one does not answer."""
        hosts, count = self.found(), self.processes_per_node
        if count != "auto":
            check_whole("processes_per_node", count, 1, "auto or a whole number from 1")
            if any(host.slots not in (None, count) for host in hosts):
                raise ConfigError("cluster.processes_per_node: some hosts have slots of their own; type cluster.processes_per_node=auto")
            return [host._replace(slots=int(count)) for host in hosts]
        if all(host.slots for host in hosts):
            return hosts
        if self.device == CPU:
            return [host._replace(slots=host.slots or 1) for host in hosts]
        names = tuple(host.name for host in hosts)
        pythons = tuple(python_of(self.python, name, sys.executable) for name in names)
        shown = _shown(names, self.device, pythons, self.answer, self.ssh_config)
        for host in hosts:
            if not host.slots and not shown[host.name]:
                raise ClusterError(f"cluster.processes_per_node=auto: {host.name} shows no GPU; leave it out, or type cluster.device=cpu")
        return [host._replace(slots=host.slots or shown[host.name]) for host in hosts]

    def threads(self, world: World) -> int:
        """Or what OMP_NUM_THREADS asks for, as on this machine."""
        return self.cpus_per_process or machine.threads_asked() or max(1, machine.cpu_count() // world.processes_per_node)

    def render(self, plan: Plan) -> str:
        from launcher.clusters.ssh.script import job_script

        return job_script(self, plan, self.slotted())

    def check(self, frozen: Frozen) -> str:
        """Raises NoScheduler where there is no ssh."""
        if shutil.which("ssh") is None:
            raise NoScheduler("ssh: not found; install OpenSSH's client, or type cluster=local to train on this machine")
        return ""

    def stay(self, here: RunDir) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._is_to_be_detached() else super().stay(here)

    def start(self, here: RunDir, when: str = "") -> dict[str, Any] | None:
        if not self._is_to_be_detached():
            return super().start(here, when)
        from launcher.clusters.ssh import detached

        return detached.start(self, here)

    def _is_to_be_detached(self) -> bool:
        return self.detach and "LAUNCHER_DETACHED" not in os.environ

    def again(self, here: RunDir, is_asked: Callable[[], bool]) -> None:
        from launcher.clusters.ssh import absence

        absence.wait(self, here.read_plan(), is_asked)


def _check_python(python: Any, names: Sequence[str]) -> None:
    paths: dict[str, Any] = dict(python) if isinstance(python, Mapping) else {} if python is None else {"": python}  # pyright: ignore[reportUnknownArgumentType]
    for name, path in paths.items():
        if name and name not in names:
            raise ConfigError(f"cluster.python: {name} is none of the hosts ({', '.join(names[:8])}); type one of those, or a path for all")
        check_text("python", path)
        if not re.fullmatch(r"/[^\x00-\x1f!']*", str(path)):
            raise ConfigError(f"cluster.python={path!r:.80}: type an absolute path of an interpreter, without quotes and !")


@functools.lru_cache(maxsize=8)
def _shown(names: tuple[str, ...], device: str, pythons: tuple[str, ...], answer: int, config: str | None) -> dict[str, int]:
    """Devices of each host. A run is planned twice before it starts: they are asked once."""
    from launcher.clusters.ssh import absence

    return absence.devices(names, device, pythons, answer, config)
