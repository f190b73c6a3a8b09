"""The frozen plan: everything decided about a run before it starts; and the protocol of a strategy, which reads it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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
            raw["world"] = World(**raw["world"])
            raw["env"] = tuple((_text(name), _text(value)) for name, value in raw["env"])
            raw["overrides"] = tuple(_text(word) for word in raw["overrides"])
            raw["told"] = tuple((_text(what), _text(name)) for what, name in raw.get("told", ()))
            raw["packages"] = tuple((_text(name), _text(digest)) for name, digest in raw.get("packages", ()))
            plan = cls(**raw)
            check_name("name", plan.name)
            check_name("id", plan.id)
            for key, value in (*vars(plan).items(), *vars(plan.world).items()):
                _check_type(key, value, plan)
            if plan.umask not in ("027", "077"):
                raise ValueError(f"umask is {plan.umask!r}")
            _check_counts(plan)
            return plan
        except (ValueError, TypeError, KeyError, ConfigError) as error:
            raise RunError(f"{where} is not a plan this launcher can read ({said(error)}); start a new run") from error


def _check_type(key: str, value: Any, plan: Plan) -> None:
    """A file may hold anything. Of a plan a script is made, and a line break in a comment ends the comment. Raises ValueError."""
    fields = {field.name: field.type for field in (*dataclasses.fields(plan), *dataclasses.fields(plan.world))}
    wanted = {"int": int, "str": str}.get(str(fields[key]))
    if wanted is not None and type(value) is not wanted:
        raise ValueError(f"{key} is {value!r}")
    if isinstance(value, str) and {"\n", "\r", "\0"} & {*value}:
        raise ValueError(f"{key} is {value!r}")


def _check_counts(plan: Plan) -> None:
    """Raises ValueError."""
    world = plan.world
    counts = {"nodes": world.nodes, "processes_per_node": world.processes_per_node, "threads": plan.threads, "processes": world.size}
    for key, count in counts.items():
        if not 0 < count <= MOST_PROCESSES:
            raise ValueError(f"{key} is no number from 1 to {MOST_PROCESSES:,}")
    if plan.max_restarts < 0 or world.device not in ("cpu", "cuda"):
        raise ValueError("max_restarts or device is none")


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


class Strategy(Protocol):
    """How the world splits the work. `check` is torch-free; the rest runs in the worker."""

    def check(self, world: World, train: Mapping[str, Any]) -> None:
        """Raises ConfigError where this strategy cannot run on that world."""
        ...

    def accelerator_handlers(self) -> list[Any]:
        """What Accelerate has to know before anything is wrapped."""
        ...

    def wrap(self, accelerator: Any, model: Any) -> Any:
        """The model, shaped from outside."""
        ...

    def no_sync(self, model: Any) -> Any:
        """A context in which backward leaves gradients unreduced, for accumulation."""
        ...
