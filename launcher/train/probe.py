"""`python -m launcher.train.probe`: how long an update takes on one device, before the run is frozen, and of what memory and energy. The
config as JSON on stdin, as prepare.py has it, and the device, its number, its share of a batch, its threads, and whether energy is wanted;
what was found as the last line of stdout.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator

from launcher.config.config import TrainConfig
from launcher.node.place import Place
from launcher.plan import Mesh
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir
from launcher.train import device, precision
from launcher.train.arithmetic import set_speed
from launcher.train.build import Process, build
from launcher.train.feed import Feed
from launcher.train.job import Job
from launcher.train.prepare import served
from launcher.train.record import energy
from launcher.train.record.metrics import memory_bytes
from launcher.train.world.ranks import Ranks

WARM_UP = 3
"""Updates that are not counted: they compile, fill caches and choose algorithms."""
LEAST, MOST, SECONDS = 5, 30, 5.0
"""Updates that are, and the seconds after which no more than the least are made."""
LONGEST = 60.0
"""Seconds, after which even those are no longer waited for."""
ENERGY_SECONDS, LOOK_SECONDS = 3.0, 0.25
"""For updates whose energy is measured, beside those that are timed: a driver says the mean of up to a second. And between two looks."""


def probe(given: Mapping[str, Any]) -> dict[str, Any]:
    """The median of single updates, data and all, each until the device has done it, and what else they took. Raises ConfigError or
    RunError; what fails in any other way is a finding too: the other device may do better."""
    where = device.take(given["device"], given["index"], given["trusted"])
    if device.is_host(where):
        torch.set_num_threads(given["threads"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            job = _job(given["config"], where, given["shares"], Path(folder))
            try:
                updates = _updates(job)
                times = timed(updates)
                spent = joules(updates, where) if given["energy"] and len(times) >= LEAST else None
            finally:
                job.loader.close()
    except RuntimeError as error:  # out of memory, an operation that the device does not have
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    if len(times) < LEAST:
        return {"failed": f"no {WARM_UP + LEAST} updates in {LONGEST:.0f} s"}
    return {
        "seconds": median(times),
        "updates": len(times),
        "times": times,
        "joules": spent,
        "memory_bytes": memory_bytes(where),
        "samples": job.config.batch_size,
        "steps_per_epoch": job.loader.steps_per_epoch,
        "name": device.name(where),
    }


def _updates(job: Job) -> Iterator[int]:
    """Makes one after another, each until the device has done it, and counts them."""
    feed = Feed(job.loader, job.state, job.config.accumulate, job.watch, job.stepper.clock)
    for step in itertools.count():
        feed.begin(step)
        job.stepper(feed, job.schedule(min(step, job.steps - 1), job.steps), False)
        device.wait(job.parts.device)
        yield step


def timed(updates: Iterator[int]) -> list[float]:
    """Seconds of single updates; fewer than the least where they take too long."""
    times: list[float] = []
    began = last = time.perf_counter()
    for step in itertools.islice(updates, WARM_UP + MOST):
        now = time.perf_counter()
        if step >= WARM_UP:
            times.append(now - last)
        if now - began > (SECONDS if len(times) >= LEAST else LONGEST):
            break
        last = time.perf_counter()
    return times


def joules(updates: Iterator[int], where: torch.device) -> float | None:
    """Of one update, the mean; None where it is not readable here."""
    gauge = energy.gauge(where)
    if gauge is None:
        return None
    gauge.look()
    began = looked = time.perf_counter()
    for count, _ in enumerate(updates, 1):
        now = time.perf_counter()
        if now - looked >= LOOK_SECONDS or now - began >= ENERGY_SECONDS:
            gauge.look()
            looked = now
        if now - began >= ENERGY_SECONDS:
            found = gauge.joules()
            return None if found is None else found / count
    return None


def _job(config: Mapping[str, Any], where: torch.device, shares: int, folder: Path) -> Job:
    """As one process of `shares` has it, alone: what processes send each other is not timed."""
    train = TrainConfig(**{**config["train"], "hang_seconds": 0.0})
    chosen, _ = precision.choose(train.precision, where)
    set_speed(where, train.deterministic)
    os.environ["ACCELERATE_TORCH_DEVICE"] = str(where)  # with its number: a thread begins with device 0, and would go on there
    accelerator = Accelerator(cpu=device.is_host(where), mixed_precision="no", rng_types=[])
    run, ranks = RunDir(folder), Ranks(0, 1)
    place = Place(rank=0, local_rank=0, world=1, attempt=0, restart=0)
    process = Process(run, place, Mesh(dp_replicate=shares).at(0), accelerator, chosen, Claim(run, 0), ranks, ranks, ranks)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)}
    job = build(process, {**config, "train": vars(train)})
    for number, handler in handlers.items():
        signal.signal(number, handler)  # a signal ends this, and asks no loop to stop
    return job


if __name__ == "__main__":
    sys.exit(served(probe))
