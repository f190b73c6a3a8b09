"""What a partition allows, held against what a job asks for: a job beyond it may be accepted and wait for ever."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from launcher.config.targets import nearest
from launcher.devices import CPU
from launcher.errors import ClusterError

if TYPE_CHECKING:
    from launcher.clusters.slurm import Slurm

Partition = Mapping[str, str]

_UNITS = {"": 1, "K": 2**-10, "M": 1, "G": 2**10, "T": 2**20}
"""Of memory, in MiB, which is what a bare number means to SLURM."""


def check(cluster: Slurm, partitions: Mapping[str, Partition]) -> None:
    """Raises ClusterError that names the key, the limit and what to type."""
    if not partitions:
        return  # none that we may see; sbatch knows
    name = cluster.partition or next((name for name, entry in partitions.items() if entry.get("Default") == "YES"), None)
    if name is None:
        raise ClusterError(f"cluster.partition: this cluster has no default; type one of {', '.join(partitions)}")
    names = str(name).split(",")
    for each in names:
        if each not in partitions:
            raise ClusterError(f"cluster.partition={each}: no such partition{nearest(each, partitions)}; there are {', '.join(partitions)}")
    counts_gpus = any("gres/gpu" in partition.get("TRES", "") for partition in partitions.values())
    refusals: list[ClusterError] = []
    if all(partitions[each].get("State") == "DOWN" for each in names):
        print(f"launcher: warning: cluster.partition={name} is DOWN; the job waits in the queue until it is up", file=sys.stderr)
    for each in names:
        try:
            _check_one(cluster, each, partitions[each], counts_gpus)
        except ClusterError as error:
            refusals.append(error)
    if len(refusals) == len(names):  # of several partitions SLURM takes one that can
        raise refusals[0]


def _check_one(cluster: Slurm, name: str, partition: Partition, counts_gpus: bool) -> None:
    """`counts_gpus`: whether this cluster says how many there are (AccountingStorageTRES); where it does not, sbatch knows."""
    if partition.get("State", "UP") not in ("UP", "DOWN"):
        raise ClusterError(f"cluster.partition={name} is {partition['State']}; choose another partition")
    longest = time_seconds(partition.get("MaxTime", "UNLIMITED"))
    if longest is not None and cluster.seconds > longest:
        raise ClusterError(
            f"cluster.time={cluster.time} is more than partition {name} allows ({partition['MaxTime']}); type "
            f"cluster.time={partition['MaxTime']} (the run goes on by itself in the next job)"
        )
    total = _resources(partition.get("TRES", ""))
    most = min(_count(partition.get("MaxNodes")), _count(partition.get("TotalNodes")))
    if cluster.count > most:
        raise ClusterError(f"cluster.nodes={cluster.count} is more than partition {name} gives a job ({most:.0f}); type at most that")
    if cluster.count < _count(partition.get("MinNodes"), 0):
        raise ClusterError(f"cluster.nodes={cluster.count}: partition {name} gives no job fewer than {partition['MinNodes']}; type that")
    if counts_gpus and cluster.device != CPU:
        _within("cluster.processes_per_node", cluster.processes_per_node, cluster.count, total.get("gres/gpu", 0.0), "GPUs", name)
    cpus = cluster.cpus_per_process * cluster.processes_per_node
    _within("cluster.cpus_per_process", cpus, cluster.count, _count(partition.get("TotalCPUs")), "CPUs", name)
    if cpus > _count(partition.get("MaxCPUsPerNode")):
        raise ClusterError(
            f"cluster.cpus_per_process: {cpus} CPUs a node is more than partition {name} gives ({partition['MaxCPUsPerNode']}); type less"
        )
    if cluster.memory is not None:
        wanted = megabytes(str(cluster.memory))
        allowed = min(_count(partition.get("MaxMemPerNode")), total.get("mem", float("inf")) / cluster.count)
        if wanted > allowed:
            raise ClusterError(
                f"cluster.memory={cluster.memory} is more than partition {name} has for a node ({allowed:.0f}M); type less, or 0 for all"
            )


def _within(key: str, per_node: float, nodes: int, total: float, what: str, name: str) -> None:
    if per_node * nodes > total:
        raise ClusterError(
            f"{key}: {nodes} node{'s' * (nodes > 1)} x {per_node} {what} is more than partition {name} has in all ({total:.0f}); type less"
        )


def time_seconds(text: str) -> float | None:
    """`1-00:00:00`, `30:00`, `UNLIMITED` (None) as scontrol prints them."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 86_400 + hours * 3_600 + minutes * 60 + seconds


def megabytes(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)([KMGT]?)B?", text)
    return float(match[1]) * _UNITS[match[2]] if match else 0.0


def _resources(text: str) -> dict[str, float]:
    """`cpu=48,mem=192G,node=3,gres/gpu=12` as numbers, memory in MiB."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {key: megabytes(value) if key == "mem" else _count(value) for key, _, value in pairs}


def _count(text: str | None, unknown: float = float("inf")) -> float:
    return float(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else unknown
