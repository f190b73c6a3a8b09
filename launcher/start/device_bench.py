"""What an update of a run takes on the CPU of this machine and on each of its other devices: `bench device` shows it."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from omegaconf import DictConfig

from launcher.clusters import submit
from launcher.clusters.local import choice
from launcher.compose import check, scripted
from launcher.compose.freeze import freeze, resolve
from launcher.config.targets import nearest
from launcher.devices import CPU, KINDS
from launcher.errors import ConfigError
from launcher.plan import Plan
from launcher.start import device_probe
from launcher.start.launch import pin

ROUNDS = 3
"""Processes on each device: one after another on all of them, then again the other way round."""
PROCESS_SECONDS = (3.0, 15.0)
"""That one takes: its start, and updates for eight seconds at most, but where eight of them take longer."""


@dataclass
class Contender:
    """One device of this machine."""

    kind: str
    index: int
    config: DictConfig | None = None
    plan: Plan | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What each process found (launcher/train/probe.py)."""
    why: str = ""
    """It has no numbers."""

    @property
    def label(self) -> str:
        return self.kind if self.kind == CPU else f"{self.kind}:{self.index}"

    @property
    def name(self) -> str:
        return str(self.rounds[0]["name"]) if self.rounds else ""

    def times(self) -> list[float]:
        return [seconds for each in self.rounds for seconds in each["times"]]

    @property
    def seconds(self) -> float:
        """Of an update, the median of all."""
        return median(self.times())

    def quartiles(self) -> tuple[float, float]:
        low, _, high = quantiles(self.times(), n=4)
        return low, high

    def medians(self) -> tuple[float, float]:
        """The least and the most of the processes' own."""
        found = [median(each["times"]) for each in self.rounds]
        return min(found), max(found)

    @property
    def samples_per_second(self) -> float:
        return self.rounds[0]["samples"] / self.seconds

    @property
    def memory_bytes(self) -> int:
        return max(each["memory_bytes"] for each in self.rounds)

    def joules(self) -> float | None:
        """Of an update; None where it was not readable."""
        found = [each["joules"] for each in self.rounds]
        return None if None in found else median(found)

    @property
    def epoch_seconds(self) -> float:
        """Of its updates: evaluations and saves are none."""
        return self.seconds * self.rounds[0]["steps_per_epoch"]

    def cost(self, prices: Mapping[str, float]) -> float | None:
        """Of an epoch; None where no price was said."""
        return self.epoch_seconds * prices[self.kind] / 3600 if self.kind in prices else None


def prices(text: str) -> dict[str, float]:
    """`cpu:0.10,cuda:2.50`: of an hour, by kind of device. Raises ConfigError."""
    found: dict[str, float] = {}
    for word in text.split(","):
        kind, _, number = word.strip().partition(":")
        if kind not in KINDS:
            raise ConfigError(f"price={text}: {kind or 'nothing'} is no kind of device{nearest(kind, KINDS)}; type price={CPU}:0.10")
        if kind in found:
            raise ConfigError(f"price={text}: {kind} has two prices; type one")
        try:
            price = float(number)
        except ValueError:
            price = -1.0
        if not 0 <= price < 1e9:
            raise ConfigError(f"price={text}: {number or 'nothing'} is no price of an hour; type a number, as in price={kind}:0.10")
        found[kind] = price
    return found


def measured(config: DictConfig, overrides: list[str]) -> list[Contender]:
    """Raises ConfigError or RunError; and where no device can make an update."""
    scripted.refuse(config, "bench device")
    frozen = freeze(config, overrides)  # every mistake in the config surfaces before any data are touched
    if not frozen.cluster.attached:
        raise ConfigError("bench device times the machine it is typed on; type cluster=local, on a node that a run would have")
    found = choice.choose(str(config.cluster.device))
    if found.device == CPU:
        _say("the CPU is the only device to be timed here: there is nothing to compare it with")
    values = resolve(config)
    prepared = submit.prepare_data(values["data"])
    pin(config, values["data"], prepared.pinned)
    check.check_held(values, prepared.holds)
    contenders = [Contender(CPU, 0)]
    if found.device != CPU:
        contenders += [Contender(found.device, index) for index in range(max(1, found.found.count))]
    for each in contenders:
        _plan(each, config, overrides)
    _race(contenders)
    if not any(each.rounds for each in contenders):
        raise ConfigError(f"bench device: {'; '.join(f'{each.label}: {each.why}' for each in contenders)}")
    return contenders


def _plan(one: Contender, config: DictConfig, overrides: list[str]) -> None:
    """One process with all of the batch."""
    beside: DictConfig = copy.deepcopy(config)
    beside.cluster.device, beside.cluster.nodes, beside.cluster.processes_per_node = one.kind, 1, 1
    try:
        one.config, one.plan = beside, freeze(beside, overrides).plan
    except ConfigError as error:
        one.why = str(error)


def _race(contenders: Sequence[Contender]) -> None:
    """Says at first, and then by what those before took, how long it will take about."""
    able = [one for one in contenders if not one.why]
    count, began, done = ROUNDS * len(able), time.monotonic(), 0
    short, long = (_span(count * seconds) for seconds in PROCESS_SECONDS)
    _say(f"{count} processes, one after another: from {short} to {long}, more where an update takes seconds")
    for number in range(ROUNDS):
        for one in able if number % 2 == 0 else [*reversed(able)]:
            if one.why or one.config is None or one.plan is None:
                count -= 1
                continue
            left = f"; about {_span((count - done) * (time.monotonic() - began) / done)} to go" if done else ""
            _say(f"round {number + 1} of {ROUNDS}: {one.label}{left}")
            try:
                answer = device_probe.timed(one.config, one.plan, one.index, energy=True)
            except ConfigError as error:  # torch sees no such device, or it is not trusted
                answer = {"failed": str(error)}
            done += 1
            if "failed" in answer:
                one.why, one.rounds = str(answer["failed"]), []
            else:
                one.rounds.append(answer)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
