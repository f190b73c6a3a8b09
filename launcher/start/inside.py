"""Started as one of several processes, by torchrun, mpirun, deepspeed or a scheduler: each would train the whole run for itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from launcher.errors import ConfigError
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
    for starter, mark, sizes, ranks, locals_ in _STARTERS:
        size, rank = _number(environment, sizes, 1), _number(environment, ranks, 0)
        if mark not in environment or size < 2:
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


def _number(environment: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    found = (environment[name] for name in names if environment.get(name, "").isdecimal())
    return int(next(found, default))
