"""The loop: step, log, evaluate, save, stop. The order within a step is the content; see `train`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from launcher.config import TrainConfig
from launcher.progress import step_line
from launcher.train.board import Board, NoBoard
from launcher.train.checkpoint import CheckpointStore
from launcher.train.ema import Ema, NoEma, averaged_buffers
from launcher.train.evaluate import evaluate
from launcher.train.metrics import MetricsFile, memory_bytes
from launcher.train.ranks import Ranks
from launcher.train.state import Parts, TrainState, capture
from launcher.train.step import Stepper
from launcher.train.stop import Stopper


@dataclass
class Job:
    """Everything a process trains with, built and restored."""

    config: TrainConfig
    steps: int
    """Optimizer updates in the whole run."""
    state: TrainState
    parts: Parts
    ema: Ema | NoEma
    inner: nn.Module
    stepper: Stepper
    schedule: Any
    task: Any
    data: Any
    loader: Any
    ranks: Ranks
    store: CheckpointStore
    stopper: Stopper
    metrics: MetricsFile
    board: Board | NoBoard
    where: dict[str, Any]
    """Where this process is, for the report of an error."""


def train(job: Job) -> bool:
    """Train from where the state is. True when all steps are done, False when stopped on request; saved either way.

    Within a step: update, then log, then evaluate, then save. So a checkpoint at step n has everything up to n in its metrics, and
    an attempt that resumes from it repeats nothing before n and misses nothing after.
    """
    clock = _Clock(job)
    every = _Intervals(job.config, job.loader.steps_per_epoch)
    first = job.state.step
    for micro_batches in clock.watch(_updates(job)):
        state = job.state
        if state.step == first and first == 0:
            job.task.show_batch(job.board, micro_batches[0], 0)
        last = state.step + 1 == job.steps
        log_due = last or (state.step + 1) % job.config.log_every == 0
        norm = job.stepper(micro_batches, job.schedule(state.step, job.steps), log_due)
        job.ema.update(state.step)
        state.step += 1
        state.samples += job.config.batch_size
        job.where["step"] = state.step
        if log_due:
            _log(job, clock, norm)
        if every.evaluation(state.step) or last:
            clock.outside(lambda: _evaluate(job, "val"))
        stop = job.stopper.agreed()
        if every.save(state.step) or last or stop:
            clock.outside(lambda: save(job, clock))
        if last or stop:
            job.stopper.settle()
            return last
    return True  # resumed from a checkpoint of the last step


def _updates(job: Job) -> Iterator[Any]:
    """Micro-batches of each update from the state's step on, epoch after epoch."""
    per_epoch = job.loader.steps_per_epoch
    while job.state.step < job.steps:
        epoch, start = divmod(job.state.step, per_epoch)
        yield from job.loader.steps(epoch, start)


def test(job: Job) -> dict[str, float]:
    """The test split with the weights that are evaluated; logged, shown, returned."""
    return _evaluate(job, "test")


def save(job: Job, clock: _Clock | None = None) -> None:
    """Commit a checkpoint of this step. Raises RunError on every rank if one could not write."""
    if clock:
        clock.settle()
    job.store.save(job.state.step, capture(job.parts, job.state, job.ranks.rank))


def _log(job: Job, clock: _Clock, norm: torch.Tensor | None) -> None:
    """One line about the steps since the last one: means over them, over all ranks."""
    state, steps = job.state, job.stepper.meter.steps
    totals = job.ranks.sum(job.stepper.meter.take().value())
    task_metrics = job.task.train_metrics(totals.tolist())
    seconds, waited = clock.lap()
    values = {
        **task_metrics,
        "lr": job.stepper.optimizer.param_groups[0]["lr"],
        **({} if norm is None else {"grad_norm": norm.item()}),
        "epoch": state.step / job.loader.steps_per_epoch,
        "samples": state.samples,
        "samples_per_second": steps * job.config.batch_size / seconds,
        "step_seconds": seconds / steps,
        "data_seconds": waited / steps,
        "memory_bytes": memory_bytes(job.parts.device),
    }
    if job.ranks.is_first:
        job.metrics.write(state.step, "train", **values)
        job.board.scalars(state.step, "train", values)
        shown = {name: values[name] for name in (*task_metrics, "lr")}
        eta = (job.steps - state.step) * seconds / steps
        print(step_line(state.step, job.steps, shown, values["samples_per_second"], eta))


def _evaluate(job: Job, split: str) -> dict[str, float]:
    loader = job.data.eval_loader(split, rank=job.ranks.rank, world=job.ranks.world, device=job.parts.device)
    if loader.samples == 0:
        return {}
    with job.ema.applied(), torch.no_grad(), averaged_buffers(job.inner, job.ranks):
        totals = evaluate(job.inner, job.task, loader, job.ranks)
    values = job.task.eval_metrics(totals)
    if job.ranks.is_first:
        step = job.state.step
        job.metrics.write(step, split, **values)
        job.board.scalars(step, split, {name: value for name, value in values.items() if name != "samples"})
        job.task.show_evaluation(job.board, totals, split, job.data.class_names, step)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "samples")
        print(f"{split} at step {step}: {shown}  ({values['samples']:,} samples)")
    return values


class _Intervals:
    """Which steps evaluate and save."""

    def __init__(self, config: TrainConfig, per_epoch: int) -> None:
        self._evaluation = per_epoch if config.eval_every == "auto" else config.eval_every
        self._save = per_epoch if config.save_every == "auto" else config.save_every

    def evaluation(self, step: int) -> bool:
        return self._evaluation > 0 and step % self._evaluation == 0

    def save(self, step: int) -> bool:
        return step % self._save == 0


class _Clock:
    """Where the time goes: in steps, in waiting for data, outside (evaluation, saving)."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._began = self._lap = time.perf_counter()
        self._waited = self._outside = self._outside_lap = 0.0

    def watch(self, updates: Iterator[Any]) -> Iterator[Any]:
        """Pass updates on, counting the wait for each."""
        while True:
            asked = time.perf_counter()
            update = next(updates, None)
            self._waited += time.perf_counter() - asked
            if update is None:
                return
            yield update

    def lap(self) -> tuple[float, float]:
        """(seconds in steps, seconds of these spent waiting for data) since the last lap."""
        now = time.perf_counter()
        seconds, waited = now - self._lap - self._outside_lap, self._waited
        self._lap, self._waited, self._outside_lap = now, 0.0, 0.0
        return seconds, waited

    def outside(self, work: Any) -> None:
        began = time.perf_counter()
        work()
        spent = time.perf_counter() - began
        self._outside += spent
        self._outside_lap += spent

    def settle(self) -> None:
        """Bring the state's own seconds up to now."""
        now = time.perf_counter()
        self._job.state.seconds += now - self._began
        self._job.state.train_seconds += max(0.0, now - self._began - self._outside)
        self._began, self._outside = now, 0.0
