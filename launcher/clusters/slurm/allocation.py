"""The allocation that this is typed in (salloc, a notebook's job, `srun --pty bash`): which it is, what it has, and for how long."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from launcher.clusters.slurm import scheduler
from launcher.clusters.slurm.states import RUNNING, is_over, state_of
from launcher.devices import CPU
from launcher.errors import ClusterError, NoScheduler

if TYPE_CHECKING:
    from launcher.clusters.slurm import Slurm

NONE = (
    "cluster.inside=true: this shell is in no allocation (SLURM_JOB_ID is not set); type salloc first, and this again in its shell, or "
    "leave cluster.inside out to submit a job"
)
_GPU = re.compile(r"\bgpu(?::[\w.+-]+)?:(\d{1,6})")


class Allocation(NamedTuple):
    number: str
    nodes: int
    """How many it has."""
    names: str = ""
    """node[1-2], as SLURM writes them."""
    cpus: tuple[int, ...] = ()
    """On a node, of each kind of node that it has; nothing where nobody says it."""
    gpus: tuple[int, ...] = ()
    state: str = "RUNNING"
    """In SLURM's word."""

    @property
    def is_over(self) -> bool:
        return is_over(self.state)

    def __str__(self) -> str:
        return f"allocation {self.number} ({self.nodes} node{'s' * (self.nodes > 1)}{f': {self.names}' if self.names else ''})"


def number() -> str | None:
    """Of the one that this process is in; None where it is in none."""
    found = os.environ.get("SLURM_JOB_ID", "")
    return found if re.fullmatch(r"[0-9]{1,15}", found) else None


def find() -> Allocation:
    """What the controller says of it; what the environment says where this machine has no scontrol. Raises ClusterError."""
    job = number()
    if job is None:
        raise ClusterError(NONE)
    try:
        reply = scheduler.ask(["scontrol", "show", "job", "--details", "--oneliner", job], scheduler.SECONDS, site=_where())
    except NoScheduler:
        return Allocation(job, _nodes_of_the_environment(), os.environ.get("SLURM_JOB_NODELIST", ""), _cpus_of_the_environment())
    if reply.status and re.search("Invalid job id", reply.err):
        return Allocation(job, 0, state="COMPLETED")
    if reply.status:
        raise ClusterError(f"scontrol says nothing of allocation {job}: {reply.words}")
    return _read(job, next((line for line in reply.out.splitlines() if f"JobId={job} " in line), ""))


def running() -> Allocation:
    """The same, where a step can be started in it. Raises ClusterError."""
    found = find()
    if found.state not in RUNNING:
        raise ClusterError(f"allocation {found.number} is {found.state.lower()}; type salloc, and this again in its shell")
    return found


def _where() -> dict[str, str]:
    """Of an allocation on another cluster than this machine's, salloc says so in a variable of its own."""
    return {name: os.environ[name] for name in ("SLURM_WORKING_CLUSTER", "SLURM_CLUSTERS") if name in os.environ}


def _read(job: str, line: str) -> Allocation:
    """A line of `scontrol show job`: first what is true of the job, then `Nodes=… CPU_IDs=… GRES=…` of each kind of node."""
    whole, *kinds = re.split(r"\s(?=Nodes=)", line)
    said = dict(re.findall(r"\b(\w+)=(\S*)", whole))
    cpus = tuple(_count(found[1]) for kind in kinds if (found := re.search(r"CPU_IDs=([\d,-]+)", kind)))
    gpus = tuple(sum(map(int, _GPU.findall(found[1]))) for kind in kinds if (found := re.search(r"\bGRES=(\S*)", kind)))
    nodes = re.match(r"\d{1,6}", said.get("NumNodes", ""))
    state = state_of(said.get("JobState", "")) or "UNKNOWN"
    return Allocation(job, int(nodes[0]) if nodes else 0, said.get("NodeList", ""), cpus, gpus, state)


def _count(numbers: str) -> int:
    """0-3,8 are five."""
    parts = [part.partition("-") for part in numbers.split(",") if re.fullmatch(r"\d{1,6}(-\d{1,6})?", part)]
    return sum(int(last or first) - int(first) + 1 for first, _, last in parts)


def _nodes_of_the_environment() -> int:
    found = re.match(r"\d{1,6}", os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES") or "")
    if found is None:
        raise ClusterError("cluster.nodes=auto: neither scontrol nor SLURM_JOB_NUM_NODES says how many there are; type cluster.nodes=…")
    return int(found[0])


def _cpus_of_the_environment() -> tuple[int, ...]:
    """16(x2),8"""
    return tuple(int(each) for each in re.findall(r"(?:^|,)(\d{1,6})", os.environ.get("SLURM_JOB_CPUS_PER_NODE", "")))


def check(cluster: Slurm, found: Allocation, nodes: int) -> None:
    """Raises ClusterError that names the key of what is beyond it."""
    if nodes > found.nodes:
        raise ClusterError(f"cluster.nodes={nodes} is more than {found} has; type cluster.nodes={found.nodes}, or leave it out to have all")
    least = min if nodes == found.nodes else max  # of some of its nodes SLURM takes those that can
    processes, each = cluster.processes_per_node, cluster.cpus_per_process
    if cluster.device != CPU and found.gpus and processes > least(found.gpus):
        has = least(found.gpus)
        instead = f"cluster.processes_per_node={has}" if has else "cluster.device=cpu, or salloc with --gres=gpu:…"
        raise ClusterError(f"cluster.processes_per_node={processes}: {found} has {has} GPUs on a node; type {instead}")
    if found.cpus and processes * each > (has := least(found.cpus)):
        key, instead = (
            ("cpus_per_process", f"cluster.cpus_per_process={has // processes}") if has >= processes else
            ("processes_per_node", f"cluster.processes_per_node={has} cluster.cpus_per_process=1")
        )  # fmt: skip
        many = f"{processes} process{'es' * (processes > 1)} x {each}"
        raise ClusterError(f"cluster.{key}: {many} CPUs are more than {found} has on a node ({has}); type {instead}")


def pause() -> None:
    """Until the controller has heard what has happened to a node."""
    time.sleep(1.0)
