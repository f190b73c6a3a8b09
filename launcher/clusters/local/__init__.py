"""Processes on this machine, started by torchrun and watched by the launcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.clusters import machine
from launcher.clusters.attended import Attended
from launcher.clusters.gpus import Gpus
from launcher.clusters.local import choice
from launcher.clusters.script import LOOPBACK, environment, torchrun_here
from launcher.devices import CPU, MPS, check_processes, check_trusted, counted
from launcher.errors import ConfigError
from launcher.plan import Plan, World
from launcher.shell import Raw, block, command, export

LEAST_FILES = 64
"""That torchrun and a worker have open, and some more."""


@dataclass(frozen=True)
class Local(Attended):
    """One node: this one."""

    nodes: int = 1
    processes_per_node: int | str = "auto"
    """auto: one per GPU; one in all on a CPU, with every core."""
    device: str = "auto"
    """auto | cpu | cuda | xpu | mps, as torch calls them; ROCm is cuda. auto: a GPU where there is one, and a line that says why."""
    trusted_devices: Sequence[str] = ()
    """Names of the devices that may compute (* and ? stand for other signs), or UUIDs, or how those begin; empty: all. A worker on any
    other is refused. Of a CPU it is the model's name."""
    max_restarts: int = 0
    """How often torchrun starts the processes again, from the newest checkpoint, after one of them died."""
    requeue: bool = True
    """Start another attempt after a rank was killed or hung; three in a row that get nowhere end the run."""

    interface: str | None = None
    """Network interface by which its processes talk to each other; null: loopback, which nobody else reaches."""

    def world(self) -> World:
        """Resolve `auto` by looking at this machine. Raises ConfigError."""
        if self.nodes != 1:
            raise ConfigError(f"cluster.nodes={self.nodes}: cluster=local is this one machine; type cluster.nodes=1")
        if self.max_restarts < 0:
            raise ConfigError(f"cluster.max_restarts={self.max_restarts} cannot be; type a whole number from 0")
        if (files := machine.open_files()) < LEAST_FILES:
            raise ConfigError(f"a process may open {files} files here and needs {LEAST_FILES}; type: ulimit -n 4096")
        if self.interface is not None and self.interface not in machine.interfaces():
            known = ", ".join(machine.interfaces()) or "none that can be listed"
            raise ConfigError(f"cluster.interface={self.interface}: this machine has {known}; type one of those, or null for loopback")
        machine.tell_of_interfaces(self.interface)
        check_trusted(self.trusted_devices)
        device, found, _ = choice.choose(self.device)
        processes = self._processes(device, found)
        check_processes(device, 1, processes)
        return World(1, processes, device)

    def chose(self) -> str:
        return choice.choose(self.device).why

    def _processes(self, device: str, found: Gpus) -> int:
        count = self.processes_per_node
        if count == "auto":
            return max(1, found.count)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"cluster.processes_per_node={count} cannot be; type auto or a whole number from 1")
        if device not in (CPU, MPS) and count > found.count and found.sure:
            shown = counted(device, found.count)
            raise ConfigError(
                f"cluster.processes_per_node={count}: this machine shows {shown}; type cluster.processes_per_node={found.count} or auto"
            )
        most = 8 * machine.cpu_count()
        if count > most:
            raise ConfigError(f"cluster.processes_per_node={count}: this machine has {machine.cpu_count()} CPUs; type at most {most}")
        return count

    def threads(self, world: World) -> int:
        """Those that OMP_NUM_THREADS or MKL_NUM_THREADS asks for, as under torchrun; else this machine's CPUs, shared out."""
        return machine.threads_asked() or max(1, machine.cpu_count() // world.processes_per_node)

    def render(self, plan: Plan) -> str:
        """The job script. `exec` keeps the pid, so that a worker can tell its torchrun from a foster parent."""
        lines = [
            "#!/usr/bin/env bash",
            f"# {plan.name}/{plan.id}: {plan.world}. Rendered by launcher {plan.version}; what runs is this file.",
            "set -euo pipefail",
            command(["umask", plan.umask]),
            command(["cd", plan.directory]) + " # where the workers go",
            f"run={command([plan.run_dir])}",
            "",
            *environment(plan, LOOPBACK if self.interface is None else _by(self.interface)),
            "",
            export("LAUNCHER_AGENT_PID", Raw("$$")),
            'echo "$$" >"$run/attempts/$LAUNCHER_ATTEMPT/agent.pid"',
            command(["cd", plan.project]) + " # where -m looks first",
            "exec " + block(torchrun_here(plan)) + ' \\\n    >"$run/attempts/$LAUNCHER_ATTEMPT/agent_0.log" 2>&1',
        ]
        return "\n".join(lines) + "\n"


def _by(interface: str) -> list[str]:
    """NCCL takes a bare name for a prefix."""
    return [export("GLOO_SOCKET_IFNAME", interface), export("NCCL_SOCKET_IFNAME", f"={interface}")]
