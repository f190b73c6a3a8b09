"""The frozen plan: all that is decided about a run before it starts, its mesh too; and the protocol of a strategy, which reads it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

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
    """`cpu` or `cuda`."""

    @property
    def size(self) -> int:
        return self.nodes * self.processes_per_node

    def __str__(self) -> str:
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
    def is_first_to_count(self) -> bool:
        return self.counts and self.dp_rank == self.cp == 0


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
            raw["world"] = world = World(**raw["world"])
            raw["mesh"] = Mesh(**raw["mesh"]) if "mesh" in raw else Mesh(dp_replicate=world.size)  # an older launcher knew no other
            raw["env"] = tuple((_text(name), _text(value)) for name, value in raw["env"])
            raw["overrides"] = tuple(_text(word) for word in raw["overrides"])
            raw["told"] = tuple((_text(what), _text(name)) for what, name in raw.get("told", ()))
            raw["packages"] = tuple((_text(name), _text(digest)) for name, digest in raw.get("packages", ()))
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
    if plan.max_restarts < 0 or world.device not in ("cpu", "cuda"):
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


class Layout(NamedTuple):
    """What a model's file says of how the model can be split (launcher/config/layout.py)."""

    blocks: tuple[str, ...] = ()
    """Names of the classes of which the model is a stack."""
    tensor_parallel: Mapping[str, str] = MappingProxyType({})
    """Patterns of names of modules, as `blocks.*.norm`, and how such a module is cut over processes (launcher/strategies/tp.py)."""
    stages: tuple[str, ...] = ()
    """Patterns of names of modules in the order in which they are called, each with what the one before gives (strategies/stages.py)."""


class Split(NamedTuple):
    """How a model is split, and which part is this process's."""

    coordinate: Coordinate
    device_mesh: Any
    """torch's DeviceMesh of the dimensions that have more than one process; None where each process has the whole model."""
    layout: Layout


class Compute(Protocol):
    """What a strategy calls with a micro-batch; the model that it calls in its turn is the strategy's."""

    def __call__(self, micro_batch: Any, /) -> None:
        """Forward and backward."""
        ...

    def forward(self, micro_batch: Any, /) -> Any:
        """The loss, a 0-d tensor, whose backward pass leaves the gradients that `__call__` does."""
        ...


class Strategy(Protocol):
    """How the world splits the work: from the model's factory to the pieces that each rank holds. A frozen dataclass of its options; `mesh`
    and `check` are torch-free, the rest runs in the worker, in the order given here. `launcher/strategies/replicated.py` has what all
    strategies share that keep a whole replica in each process.
    """

    def mesh(self, world: World) -> Mesh:
        """Degrees that multiply to the world. Raises ConfigError, with the arithmetic in it, where they cannot."""
        ...

    @property
    def is_collective(self) -> bool:
        """Whether a forward pass waits for other ranks, so that all have to make as many."""
        ...

    def check(self, world: World, config: Mapping[str, Any], layout: Layout) -> None:
        """Raises ConfigError where this strategy cannot run on that world, or not with this config; `layout` is its model's."""
        ...

    def accelerator_handlers(self) -> list[Any]:
        """What Accelerate has to know before anything is prepared."""
        ...

    def build(self, factory: Callable[[], Any], device: Any) -> Any:
        """The torch.nn.Module that `factory` makes, on `device`: whole, or made on the meta device and only its pieces filled."""
        ...

    def prepare(self, accelerator: Any, model: Any, split: Split) -> Any:
        """What the loop calls in the model's place. Parameters may be others from here on: optimizers are made over them after."""
        ...

    def no_sync(self, prepared: Any) -> Any:
        """A context in which backward leaves gradients unreduced, for all micro-batches of an update but the last."""
        ...

    def forward_backward(self, prepared: Any, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        """The gradients of one update: the mean over data-parallel ranks of what their backward passes leave. `micro_batches` has `count`,
        each made when it is asked for."""
        ...

    def evaluated(self, prepared: Any, model: Any) -> Any:
        """What an evaluation calls; `model` is what `build` made."""
        ...

    def release(self, prepared: Any) -> None:
        """Let go of what forward passes have gathered, where no backward pass comes after them: weights may be others when it is used."""
        ...

    def pieces(self, model: Any, coordinate: Coordinate) -> Mapping[str, Piece]:
        """Of each parameter, by name, what this rank holds, or who holds it."""
        ...


class Piece(NamedTuple):
    """Part of a parameter, and of what goes with it (optimizer state, average): where it lies in the whole, and who has the same."""

    shape: tuple[int, ...]
    """Of the whole."""
    offset: tuple[int, ...]
    """Of this piece's first element."""
    replicas: tuple[int, ...]
    """Ranks that hold the same, this one among them; all are compared."""

    @property
    def owner(self) -> int:
        """The one of them that writes it to a checkpoint, and counts it in a sum over ranks."""
        return self.replicas[0]
