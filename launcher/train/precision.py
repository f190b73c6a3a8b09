"""Which arithmetic, and why: the same on every rank, and in every attempt of a run."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from launcher.errors import ConfigError
from launcher.train import device
from launcher.train.world.ranks import Ranks

_NAMES = ("bf16", "fp16", "fp32")


class Ability(NamedTuple):
    """What the device of one rank computes."""

    host: str
    fast: tuple[str, ...]
    """What its matrix units have, the fastest first, fp32 always."""
    slow: tuple[str, ...]
    """What it computes correctly beside that."""
    why: str


def agree(asked: str, where: torch.device, ranks: Ranks, stored: str) -> tuple[str, str]:
    """`settle` for all ranks of a world, the same on each. `stored`: what the run computes in already, empty where it begins."""
    told = [Ability(host, tuple(fast), tuple(slow), why) for host, fast, slow, why in ranks.gather(ability(where))]
    return settle(asked, told, stored)


def choose(asked: str, where: torch.device) -> tuple[str, str]:
    """`settle` for one process that begins."""
    return settle(asked, [ability(where)])


def settle(asked: str, abilities: Sequence[Ability], stored: str = "") -> tuple[str, str]:
    """`train.precision` -> (bf16 | fp16 | fp32, the reason).

    `auto` takes the fastest that all ranks have: ranks that compute in different ones would add up different gradients. A run that has
    begun keeps what it began with, also where that is slow; raises ConfigError where a rank cannot compute in it at all.
    """
    best = next(each for each in _NAMES if all(each in rank.fast for rank in abilities))
    if asked == "auto" and not stored:
        return best, _why_best(abilities)
    wanted = stored or asked
    unable = [number for number, rank in enumerate(abilities) if wanted not in rank.fast + rank.slow]
    if unable:
        first = _named(abilities, unable[0])
        if not stored:
            raise ConfigError(f"train.precision={asked}: {first}; type train.precision={best}")
        hosts = ",".join(dict.fromkeys(abilities[number].host for number in unable))
        raise ConfigError(
            f"this run computes in {stored} and another arithmetic would make another run of it, but {first}; resume it where all can "
            f"(in a batch job: cluster.exclude={hosts}), or begin a new run with train.precision={best}"
        )
    reason = "as in the attempts before" if stored else "asked for"
    slow = [number for number, rank in enumerate(abilities) if wanted in rank.slow]
    return wanted, f"{reason}, though {_named(abilities, slow[0])}: correct, but not known to be faster than fp32" if slow else reason


def _why_best(abilities: Sequence[Ability]) -> str:
    """Of unlike ranks, the first that has least."""
    least = min(range(len(abilities)), key=lambda number: len(abilities[number].fast))
    unlike = len({rank.fast for rank in abilities}) > 1
    return f"the fastest that all ranks have: {_named(abilities, least)}" if unlike else abilities[0].why


def _named(abilities: Sequence[Ability], number: int) -> str:
    rank = abilities[number]
    return f"rank {number} on {rank.host}: {rank.why}" if len(abilities) > 1 else rank.why


def ability(where: torch.device) -> Ability:
    """Of this process."""
    host = socket.gethostname()
    if device.has_cublas(where):
        major, minor = device.compute_capability(where)
        name = f"{device.name(where)}, compute capability {major}.{minor},"
        if major >= 8:
            return Ability(host, ("bf16", "fp16", "fp32"), (), f"{name} has bf16 tensor cores")
        if major == 7:
            return Ability(host, ("fp16", "fp32"), (), f"{name} has fp16 tensor cores and no bf16")
        return Ability(host, ("fp32",), ("fp16",), f"{name} has no tensor cores")
    if not device.is_host(where):
        return _by_properties(host, where)
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return Ability(host, ("fp32",), ("bf16",), "this system does not say what its CPU can do")
    found = sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    if found:
        return Ability(host, ("bf16", "fp32"), (), f"this CPU has {found[0]}")
    return Ability(host, ("fp32",), ("bf16",), "this CPU has no bf16 arithmetic")


def _by_properties(host: str, where: torch.device) -> Ability:
    """Of what has no compute capability: Intel's says whether it has matrix units, of Apple's nobody here has measured anything."""
    if getattr(device.properties(where), "has_subgroup_matrix_multiply_accumulate", False):
        return Ability(host, ("bf16", "fp16", "fp32"), (), f"{device.name(where)} has matrix units for bf16")
    return Ability(host, ("fp32",), ("bf16", "fp16"), f"{device.name(where)} names no matrix units for bf16")
