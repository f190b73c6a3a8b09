"""Started where others have been at work before: as one of several processes, by torchrun, mpirun, deepspeed or a scheduler, each of which
would train the whole run for itself; or in a room that a scheduler has given, which the run does not use."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping

from launcher.errors import ConfigError
from launcher.plan import Plan
from launcher.start import choices
from launcher.trust import traces
from launcher.trust.traces import Starter

_STARTERS = (
    Starter("torchrun", "TORCHELASTIC_RUN_ID", ("WORLD_SIZE",), ("RANK",), ("LOCAL_WORLD_SIZE",)),
    Starter("deepspeed", "CROSS_RANK", ("WORLD_SIZE",), ("RANK",), ("LOCAL_SIZE",)),
    *traces.starters(),
    Starter("mpirun", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_SIZE",), ("OMPI_COMM_WORLD_RANK",), ("OMPI_COMM_WORLD_LOCAL_SIZE",)),
    Starter("mpirun", "MV2_COMM_WORLD_SIZE", ("MV2_COMM_WORLD_SIZE",), ("MV2_COMM_WORLD_RANK",), ("MV2_COMM_WORLD_LOCAL_SIZE",)),
    Starter("mpirun", "PMI_RANK", ("PMI_SIZE",), ("PMI_RANK",), ("MPI_LOCALNRANKS",)),
    Starter("mpirun", "PMIX_RANK", ("MPI_LOCALNRANKS",), ("PMIX_RANK",), ("MPI_LOCALNRANKS",)),
)

PATIENCE_SECONDS = 5.0
"""For process 0 to say its line: torchrun and mpirun end all others as soon as one has failed."""


def refuse(environment: Mapping[str, str]) -> None:
    """Raises ConfigError in process 0; the others say nothing and end after it, with the same code."""
    for starter, mark, sizes, ranks, locals_, terminal in _STARTERS:
        size, rank = _number(environment, sizes, 1), _number(environment, ranks, 0)
        if mark not in environment or size < 2 or (not rank and terminal and terminal in environment):
            continue
        if rank:
            time.sleep(PATIENCE_SECONDS)
            sys.exit(ConfigError.exit_code)
        here = _number(environment, locals_, size)
        nodes = f"cluster={choices.batch()} cluster.nodes={size // here} " if size > here > 0 else ""
        raise ConfigError(
            f"{starter} has started this {size} times, and each would train for itself; the launcher starts its processes: type "
            f"python -m launcher +exp=… {nodes}cluster.processes_per_node={here or size}"
        )


def suggest(environment: Mapping[str, str], plan: Plan) -> None:
    """One line, where the processes would start on this machine though there is more: none to who has typed which cluster is meant, where
    this node is all there is, and in the job of a run."""
    if plan.told or "LAUNCHER_ATTEMPT" in environment or any(word.startswith("cluster=") for word in plan.overrides):
        return
    for number, nodes, node, words in traces.rooms():
        if number in environment and not (node in environment and environment.get(nodes) == "1"):
            _tell(f"you are inside allocation {environment[number]}; {words} runs there, cluster=local here without a word")


@functools.cache
def _tell(text: str) -> None:
    print(f"launcher: {text}", file=sys.stderr)


def _number(environment: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    found = (environment[name] for name in names if environment.get(name, "").isdecimal())
    return int(next(found, default))
