"""Where in the world a process is, as torchrun and the job script told it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from launcher.errors import ConfigError, TrainingFailed
from launcher.plan import Plan


@dataclass(frozen=True)
class Place:
    """Where in the world this process is."""

    rank: int
    local_rank: int
    world: int
    attempt: int
    restart: int
    """How often torchrun has restarted the processes within this attempt."""

    @classmethod
    def from_environment(cls) -> Place:
        """Raises ConfigError that names the variable."""
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LAUNCHER_ATTEMPT", "TORCHELASTIC_RESTART_COUNT")
        return cls(*(_whole(name) for name in names))


def _whole(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ConfigError(f"{name}={value!r} is no whole number; start workers by the run's job.sh, not by hand")
    return int(value)


def check_world(plan: Plan, place: Place) -> None:
    """A smaller world than promised trains something else in silence: refuse. Raises TrainingFailed."""
    if place.world != plan.world.size:
        raise TrainingFailed(
            f"this run was planned for a world of {plan.world.size} ({plan.world}) and torchrun made one of {place.world}; "
            "nothing was trained"
        )
