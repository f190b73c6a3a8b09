"""The frozen plan: all that is decided about a run before it starts, its mesh too."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from launcher.devices import KINDS
from launcher.errors import ConfigError, RunError, said
from launcher.trust import reading

MOST_PROCESSES = 1_000_000
"""Of one run: ten times the largest machine. A plan that says more is damaged, and nobody is to count so far."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names and ids: they become directories, job names and TensorBoard runs."""


@dataclass(frozen=True)
class World:
    """How many processes there are and what each of them computes on."""

    nodes: int
    processes_per_node: int
    device: str
    """One of launcher/devices.py."""
    uneven: tuple[int, ...] = ()
    """Processes of each node, where they have not all the same number; `processes_per_node` is the largest then."""

    @property
    def size(self) -> int:
        return sum(self.uneven) or self.nodes * self.processes_per_node

    def __str__(self) -> str:
        if self.uneven:
            return f"{self.nodes} nodes with {', '.join(map(str, self.uneven))} processes on {self.device}"
        processes = "process" if self.processes_per_node == 1 else "processes"
        return f"{self.nodes} node{'s' * (self.nodes > 1)} x {self.processes_per_node} {processes} on {self.device}"


ORDER = ("pp", "dp_replicate", "dp_shard", "cp", "tp")
"""Of a mesh's dimensions, from the one that varies slowest over ranks."""


@dataclass(frozen=True)
class Mesh:
    """How the world is split, by the field's names: the degrees multiply to its size. The last dimension varies fastest over ranks, so that
    those who talk most (tp) are neighbours: rank = (((pp * dp_replicate + …) * dp_shard + …) * cp + …) * tp + ….
    """

    dp_replicate: int = 1
    """Whole replicas, each with a share of every batch."""
    dp_shard: int = 1
    """Shares of a batch whose processes hold the state of one replica between them."""
    cp: int = 1
    """Parts of a sequence."""
    tp: int = 1
    """Parts of a layer."""
    pp: int = 1
    """Stages of a model."""

    @property
    def size(self) -> int:
        return self.dp_size * self.cp * self.tp * self.pp

    @property
    def dp_size(self) -> int:
        """Shares of a batch."""
        return self.dp_replicate * self.dp_shard

    @property
    def is_staged(self) -> bool:
        """Whether ranks have other modules than their peers, and only some come to a loss."""
        return self.pp > 1

    def at(self, rank: int) -> Coordinate:
        """Where that rank stands."""
        rank, tp = divmod(rank, self.tp)
        rank, cp = divmod(rank, self.cp)
        rank, dp_shard = divmod(rank, self.dp_shard)
        pp, dp_replicate = divmod(rank, self.dp_replicate)
        return Coordinate(self, dp_replicate, dp_shard, cp, tp, pp)

    def __str__(self) -> str:
        return " x ".join(f"{name} {size}" for name, size in dataclasses.asdict(self).items() if size > 1) or "one process"


class Coordinate(NamedTuple):
    """One process in the mesh. What is about data asks it; what is about processes (messages, files, locks) asks for rank and world."""

    mesh: Mesh
    dp_replicate: int = 0
    dp_shard: int = 0
    cp: int = 0
    tp: int = 0
    pp: int = 0

    @property
    def dp_rank(self) -> int:
        """Which share of a batch is this process's; those of one replica have the same."""
        return self.dp_replicate * self.mesh.dp_shard + self.dp_shard

    @property
    def dp_size(self) -> int:
        return self.mesh.dp_size

    @property
    def counts(self) -> bool:
        """Whether totals take this process's numbers: its peers in a layer and the stages before the last have the same, or none."""
        return self.tp == 0 and self.pp == self.mesh.pp - 1

    @property
    def counts_samples(self) -> bool:
        """Whether totals over whole samples, as of an evaluation, do: those with another part of a sequence have the same."""
        return self.counts and self.cp == 0

    @property
    def is_first_to_count(self) -> bool:
        return self.counts_samples and not self.dp_rank


TRAINER, SCRIPTED = "launcher.train.worker", "launcher.scripted"
"""What the processes of a run are."""


@dataclass(frozen=True)
class Plan:
    """One run, decided. Pure data: `plan.json` holds it, every attempt of the run reads it back."""

    name: str
    id: str
    run_dir: str
    world: World
    threads: int
    """CPU threads of each process (`OMP_NUM_THREADS`)."""
    max_restarts: int
    """How often torchrun restarts the processes of a node within one attempt."""
    python: str
    """The interpreter that submits is the one that trains."""
    directory: str
    """Where the command was typed: the working directory of every process."""
    project: str
    """The directory that holds the packages launcher, models and data."""
    env: tuple[tuple[str, str], ...]
    """What the worker's environment must hold beside what the script sets itself."""
    config_hash: str
    code_hash: str
    overrides: tuple[str, ...]
    version: str
    packages: tuple[tuple[str, str], ...] = ()
    """The hash of each package of the code, where it is not copied; empty in a run of an older launcher."""
    umask: str = "077"
    """Of everything that the run writes: 027 where its group may read it."""
    mesh: Mesh = Mesh()
    """Of the size of the world."""
    told: tuple[tuple[str, str], ...] = ()
    """Which variables tell a process of a job where it is: of `number`, `name` and `nodes` (launcher/clusters/protocol.py); none here."""
    trusted_devices: tuple[str, ...] = ()
    """Names, patterns of names and UUIDs of the devices that may compute; empty: all."""
    chosen: str = ""
    """Why `world.device`, in one line; empty where it was typed."""
    program: str = TRAINER
    """The module that each process runs: the trainer, or what stays with a script of the user's."""

    def hear(self, what: str) -> str:
        """What the scheduler has told this process of one of them; empty where it tells nothing."""
        return os.environ.get(dict(self.told).get(what, ""), "")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str | Path) -> Plan:
        """Read a plan back. Raises RunError where the text is not a plan of this version's shape."""
        try:
            raw = reading.record(text)
            world = World(**raw["world"])
            raw["world"] = world = dataclasses.replace(world, uneven=tuple(world.uneven))
            raw["mesh"] = Mesh(**raw["mesh"]) if "mesh" in raw else Mesh(dp_replicate=world.size)  # an older launcher knew no other
            raw["env"] = tuple((_text(name), _text(value)) for name, value in raw["env"])
            raw["overrides"] = tuple(_text(word) for word in raw["overrides"])
            raw["told"] = tuple((_text(what), _text(name)) for what, name in raw.get("told", ()))
            raw["packages"] = tuple((_text(name), _text(digest)) for name, digest in raw.get("packages", ()))
            raw["trusted_devices"] = tuple(_text(entry) for entry in raw.get("trusted_devices", ()))
            plan = cls(**raw)
            check_name("name", plan.name)
            check_name("id", plan.id)
            for part in (plan, plan.world, plan.mesh):
                _check_types(part)
            if plan.umask not in ("027", "077"):
                raise ValueError(f"umask is {plan.umask!r}")
            _check_counts(plan)
            return plan
        except (ValueError, TypeError, KeyError, ConfigError) as error:
            raise RunError(f"{where} is not a plan this launcher can read ({said(error)}); start a new run") from error


def _check_types(part: Plan | World | Mesh) -> None:
    """A file may hold anything. Of a plan a script is made, and a line break in a comment ends the comment. Raises ValueError."""
    for field in dataclasses.fields(part):
        value, wanted = getattr(part, field.name), {"int": int, "str": str}.get(str(field.type))
        if wanted is not None and type(value) is not wanted:
            raise ValueError(f"{field.name} is {value!r}")
        if isinstance(value, str) and not {"\n", "\r", "\0"}.isdisjoint(value):
            raise ValueError(f"{field.name} is {value!r}")


def _check_counts(plan: Plan) -> None:
    """Raises ValueError."""
    world = plan.world
    counts = {"nodes": world.nodes, "processes_per_node": world.processes_per_node, "threads": plan.threads, "processes": world.size}
    counts |= vars(plan.mesh)
    for key, count in counts.items():
        if not 0 < count <= MOST_PROCESSES:
            raise ValueError(f"{key} is no number from 1 to {MOST_PROCESSES:,}")
    if plan.program not in (TRAINER, SCRIPTED):
        raise ValueError("program is none of the launcher's")
    if world.uneven and len(world.uneven) != world.nodes:
        raise ValueError("uneven has another number of nodes")
    if any(type(each) is not int or not 0 < each <= world.processes_per_node for each in world.uneven):
        raise ValueError("uneven has a node with another number of processes")
    if plan.max_restarts < 0 or world.device not in KINDS:
        raise ValueError("max_restarts or device is none")
    if plan.mesh.size != world.size:
        raise ValueError(f"a mesh of {plan.mesh} does not fill a world of {world.size}")


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("what should be a text is none")
    return value


def check_name(key: str, value: object) -> str:
    """A user's `name` or `id`. Raises ConfigError."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ConfigError(
            f"{key}={'null' if value is None else repr(value)} cannot name a directory and a job: letters, digits, '.', '_' and '-' only, "
            f"at most 64 and not '.', '_' or '-' first; for example {key}=cifar-1"
        )
    return value
