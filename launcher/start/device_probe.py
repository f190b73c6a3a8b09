"""`train.device_probe`: where cluster.device=auto has found a GPU, updates of the run itself are timed on it and on the CPU, and the
quicker is taken. Before the run is frozen, so that all ranks and all later attempts have what was decided here.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from omegaconf import DictConfig

from launcher.clusters import submit
from launcher.compose.freeze import Frozen, freeze, resolve, stored_config
from launcher.devices import CPU
from launcher.errors import ConfigError
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir

KEY = "train.device_probe=true"


class Timed(NamedTuple):
    """What was measured on one kind of device."""

    device: str
    seconds: float
    """Of an update, the median."""
    updates: int
    """That were timed."""
    shares: int
    """Processes that an update is divided over; one of them was timed."""


def decide(found: Timed, cpu: Timed) -> tuple[str, str]:
    """The device to train on, and why. The GPU where both take the same: the CPU is then free for data."""
    chosen = cpu if cpu.seconds < found.seconds else found
    numbers = " and ".join(
        f"{each.seconds * 1000:.3g} ms on {each.device}{f' (a share of {each.shares})' if each.shares > 1 else ''}" for each in (found, cpu)
    )
    counts = " and ".join(str(each.updates) for each in (found, cpu))
    return chosen.device, f"cluster.device=auto takes {chosen.device}: an update takes {numbers} (medians of {counts}, {KEY})"


def settle(config: DictConfig, overrides: list[str], frozen: Frozen) -> str:
    """Write what is decided into `config`, as if it had been typed, and return why; empty where nothing was asked. Raises ConfigError."""
    plan, run = frozen.plan, RunDir(frozen.plan.run_dir)
    if not config.train.device_probe:
        return ""
    if run.config.exists() and config.cluster.device == "auto":  # the same command with the same id: what was decided then holds
        stored = stored_config(run)["cluster"].get("device")
        return _taken(config, str(stored), run.read_plan().chosen)
    if not plan.chosen:
        return f"{KEY} has nothing to choose: cluster.device={config.cluster.device} was typed"
    if plan.world.device == CPU:
        return f"{plan.chosen}; {KEY} has nothing to compare it with"
    beside: DictConfig = copy.deepcopy(config)
    beside.cluster.device = CPU
    try:
        other = freeze(beside, overrides).plan
    except ConfigError as error:
        return _taken(config, plan.world.device, f"cluster.device=auto takes {plan.world.device}: a CPU cannot have this run ({error})")
    found = _timed(config, plan)
    try:
        cpu = _timed(beside, other)
    except ConfigError as error:
        return _taken(config, plan.world.device, f"cluster.device=auto takes {plan.world.device}: {str(error).partition('; type')[0]}")
    return _taken(config, *decide(found, cpu))


def _taken(config: DictConfig, device: str, why: str) -> str:
    config.cluster.device = device
    return why


def timed(config: DictConfig, plan: Plan, index: int, *, energy: bool) -> dict[str, Any]:
    """What launcher/train/probe.py found, or `failed`, of one process as the plan has it, on that device of its node."""
    shares = plan.mesh.dp_size
    where = {"device": plan.world.device, "index": index, "trusted": plan.trusted_devices, "shares": shares, "threads": plan.threads}
    return submit.time_updates({"config": resolve(config), **where, "energy": energy})


def _timed(config: DictConfig, plan: Plan) -> Timed:
    """Raises ConfigError where no update could be made, or one process would not make one as the run does."""
    device, shares = plan.world.device, plan.mesh.dp_size
    if plan.mesh.dp_replicate != plan.mesh.size:
        raise ConfigError(
            f"{KEY} times one process, and here a model is split over several ({plan.mesh}); type train.device_probe=false, or strategy=ddp"
        )
    answer = timed(config, plan, 0, energy=False)
    if "failed" in answer:
        raise ConfigError(f"{KEY}: {device} cannot be timed ({answer['failed']}); type train.device_probe=false, or another cluster.device")
    return Timed(device, answer["seconds"], answer["updates"], shares)
