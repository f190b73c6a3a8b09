"""`python -m launcher.train.probe`: how long an update takes on one device, before the run is frozen. The config as JSON on stdin, as
prepare.py has it, and the device, its share of a batch and its threads; seconds as the last line of stdout.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Mapping
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
from launcher.train.world.ranks import Ranks

WARM_UP = 3
"""Updates that are not counted: they compile, fill caches and choose algorithms."""
LEAST, MOST, SECONDS = 5, 30, 5.0
"""Updates that are, and the seconds after which no more than the least are made."""
LONGEST = 60.0
"""Seconds, after which even those are no longer waited for."""


def probe(given: Mapping[str, Any]) -> dict[str, Any]:
    """The median of single updates, data and all, each until the device has done it. Raises ConfigError or RunError; what fails in any
    other way is a finding too: the other device may do better."""
    where = device.take(given["device"], 0, given["trusted"])
    if device.is_host(where):
        torch.set_num_threads(given["threads"])
    try:
        with tempfile.TemporaryDirectory() as folder:
            job = _job(given["config"], where, given["shares"], Path(folder))
            try:
                times = timed(job)
            finally:
                job.loader.close()
    except RuntimeError as error:  # out of memory, an operation that the device does not have
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    return (
        {"seconds": median(times), "updates": len(times)}
        if len(times) >= LEAST
        else {"failed": f"no {WARM_UP + LEAST} updates in {LONGEST:.0f} s"}
    )


def timed(job: Job) -> list[float]:
    """Seconds of single updates; fewer than the least where they take too long."""
    feed = Feed(job.loader, job.state, job.config.accumulate, job.watch, job.stepper.clock)
    times: list[float] = []
    began = time.perf_counter()
    for step in range(WARM_UP + MOST):
        last = time.perf_counter()
        feed.begin(step)
        job.stepper(feed, job.schedule(step, job.steps), False)
        device.wait(job.parts.device)
        now = time.perf_counter()
        if step >= WARM_UP:
            times.append(now - last)
        if now - began > (SECONDS if len(times) >= LEAST else LONGEST):
            break
    return times


def _job(config: Mapping[str, Any], where: torch.device, shares: int, folder: Path) -> Job:
    """As one process of `shares` has it, alone: what processes send each other is not timed."""
    train = TrainConfig(**{**config["train"], "hang_seconds": 0.0})
    chosen, _ = precision.choose(train.precision, where)
    set_speed(where, train.deterministic)
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
