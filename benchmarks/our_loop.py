"""Our loop as a contender: `launcher.train.loop.train` itself, on what a process builds for it, made to take turns by its loader."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from data.resident import Resident
from launcher.node.place import Place
from launcher.plan import Mesh
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir
from launcher.train.build import Process, build
from launcher.train.job import Job
from launcher.train.record.board import Board
from launcher.train.world.ranks import Ranks

CONTENDERS = ("A", "B", "B'", "C")
Times = dict[str, list[tuple[float, float]]]
"""Contender -> (wall, CPU) seconds of each of its blocks."""


class Turns:
    """Our loop's loader, and the referee: at the end of each of A's blocks the others get their turns before A gets its next batch.

    So `loop.train` runs as it does in a run, from its first step to its last, and never knows.
    """

    def __init__(self, inner: Resident, block: int, order: list[str], plain: dict[str, Iterator[Any]]) -> None:
        self.samples, self.steps_per_epoch = inner.samples, inner.steps_per_epoch
        self.times: Times = {name: [] for name in CONTENDERS}
        self._inner, self._block, self._order, self._plain = inner, block, iter(order), plain
        self._began: tuple[float, float] | None = None

    def evaluation(self, split: str) -> Empty:
        return Empty()

    def steps(self, epoch: int, start: int = 0) -> Iterator[Any]:
        batches = self._inner.steps(epoch, start)
        for step in range(epoch * self.steps_per_epoch + start, (epoch + 1) * self.steps_per_epoch):
            if step % self._block == 0:
                self._boundary()
            yield next(batches)

    def _boundary(self) -> None:
        """Close A's block, run whoever is before A's next one, open that."""
        if self._began is not None:
            self._note("A", self._began)
        self._began = None
        for name in self._order:
            began = _now()
            if name == "A":
                self._began = began
                return
            next(self._plain[name])
            self._note(name, began)

    def _note(self, name: str, began: tuple[float, float]) -> None:
        wall, cpu = _now()
        self.times[name].append((wall - began[0], cpu - began[1]))


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


class Empty:
    """A split of no samples: evaluation is no part of a step."""

    samples = 0


def make_job(
    config: dict[str, Any], loader: Turns, folder: Path, precision: str, rank: int = 0, world: int = 1, device_mesh: Any = None
) -> Job:
    """What a process of a run trains with (launcher/train/build.py), around our loader; with a `device_mesh` its model is in pieces."""
    run, ranks, peers, savers = RunDir(folder), *(Ranks(rank, world) for _ in range(3))
    claim = Claim(run, 0)
    if ranks.is_first:
        claim.take()
    ranks.wait()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)}
    place, mesh = Place(rank, local_rank=rank, world=world, attempt=0, restart=0), Mesh(dp_shard=world) if device_mesh else Mesh()
    accelerator = Accelerator(cpu=True, mixed_precision="no", rng_types=[])
    process = Process(run, place, mesh.at(rank), accelerator, precision, claim, ranks, peers, savers, device_mesh)
    job = build(process, config, loader)
    for number, handler in handlers.items():
        signal.signal(number, handler)  # Ctrl-C ends a benchmark
    if ranks.is_first:
        job.board = Board(folder / "tb", first_step=0)
    return job
