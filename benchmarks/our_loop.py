"""Our loop as a contender: `launcher.train.loop.train` itself, on what a process builds for it, made to take turns by its loader."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from data.resident import Evaluation, Resident
from launcher.config import targets
from launcher.config.config import TrainConfig
from launcher.node.place import Place
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir
from launcher.train import optimizers
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.saver import Interval, Saver
from launcher.train.checkpoint.state import Parts, replicated
from launcher.train.checkpoint.stored import TrainState
from launcher.train.ema import Ema, NoEma
from launcher.train.guard.guard import Guard
from launcher.train.guard.layers import Layers
from launcher.train.guard.replicas import Replicas
from launcher.train.job import Job
from launcher.train.precision import accelerate_name
from launcher.train.record.board import Board
from launcher.train.record.metrics import Meter, MetricsFile
from launcher.train.step import Stepper
from launcher.train.stop import Deadline, Stopper
from launcher.train.watch import Watch
from launcher.train.world.agreement import Agreement
from launcher.train.world.patience import Patience
from launcher.train.world.ranks import Ranks

CONTENDERS = ("A", "B", "B'")
CPU = torch.device("cpu")
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

    def steps(self, epoch: int, start: int = 0) -> Iterator[Any]:
        batches = self._inner.steps(epoch, start)
        for step in range(epoch * self.steps_per_epoch + start, (epoch + 1) * self.steps_per_epoch):
            if step % self._block == 0:
                self._boundary()
            yield next(batches)

    def evaluation(self, split: str) -> Evaluation:
        """Nothing: it is no part of a step."""
        return Evaluation(None, 0, 1, CPU, 1)

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


def make_job(config: dict[str, Any], inner: torch.nn.Module, loader: Turns, folder: Path, precision: str) -> Job:
    """What launcher/train/work.py builds for one process, around a loader of ours."""
    train, ranks = TrainConfig(**config["train"]), Ranks(0, 1)
    accelerator = Accelerator(cpu=True, mixed_precision=accelerate_name(precision), rng_types=[])
    strategy, task = targets.build(config["strategy"]), targets.build(config["task"])
    meter = Meter(task.train_sums, CPU)
    model = strategy.wrap(accelerator, inner)
    optim = optimizers.build(config["optim"], inner)
    ema = Ema(inner, train.ema_decay) if train.ema_decay > 0 else NoEma()
    claim = Claim(RunDir(folder), 0)
    claim.take()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    place, most = Place(rank=0, local_rank=0, world=1, attempt=0, restart=0), Patience.of(train.hang_seconds).watch
    watch = Watch(RunDir(folder), place, ranks, train.hang_seconds, most, "cpu")
    deadline, metrics = Deadline(None), MetricsFile(folder / "metrics.jsonl")
    stopper = Stopper(folder / "STOP", ranks, claim, deadline)
    for number, handler in handlers.items():
        signal.signal(number, handler)  # Ctrl-C ends a benchmark
    store = CheckpointStore(folder / "checkpoints", ranks, claim, 0, train.keep, metrics.sync)
    layers = Layers(inner, train.layers_every if ranks.is_first else 0)
    parts = Parts(inner, optim, accelerator.scaler, ema, meter, CPU, layers)
    return Job(
        run=RunDir(folder),
        config=train,
        steps=config["train"]["steps"],
        state=TrainState(),
        parts=parts,
        ema=ema,
        inner=inner,
        stepper=Stepper(model, optim, accelerator.scaler, task, meter, train.clip_norm, strategy.no_sync, watch),
        schedule=targets.build(config["schedule"]),
        task=task,
        data=None,
        loader=loader,
        ranks=ranks,
        store=store,
        saver=Saver(store, Interval(train.save_every, 3600 * train.mtbf_hours), deadline, 0),
        stopper=stopper,
        guard=Guard(train.spike),
        replicas=Replicas(lambda: replicated(parts), ranks, train.compare_every),
        layers=layers,
        watch=watch,
        agreement=Agreement(ranks),
        metrics=metrics,
        board=Board(folder / "tb", first_step=0),
        where={},
    )
