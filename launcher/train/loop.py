"""The loop: step, log, evaluate, save, stop. The order within a step is the content; see `train`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from launcher.config import TrainConfig
from launcher.train.clock import Clock
from launcher.train.ema import averaged_buffers
from launcher.train.evaluate import evaluate
from launcher.train.job import Job
from launcher.train.lines import Lines
from launcher.train.state import capture


def train(job: Job) -> str:
    """Train from where the state is. Returns why it stopped before the last step, empty when all are done; saved either way.

    Within a step: update, then log, then evaluate, then save. So a checkpoint at step n has everything up to n in its metrics, and
    an attempt that resumes from it repeats nothing before n and misses nothing after.
    """
    clock, state = Clock(), job.state
    lines, every = Lines(job, clock), _Intervals(job.config, job.loader.steps_per_epoch)
    for micro_batches in clock.watch(_updates(job)):
        if state.step == 0:
            job.task.show_batch(job.board, micro_batches[0], 0)
        last = state.step + 1 == job.steps
        log = last or (state.step + 1) % job.config.log_every == 0
        norm = job.stepper(micro_batches, job.schedule(state.step, job.steps), log)
        job.ema.update(state.step)
        state.step += 1
        state.samples += job.config.batch_size
        job.where["step"] = state.step
        lines.finish()  # of the step before: while this step ran, its numbers came to the host
        if log:
            lines.begin(norm)
        stop = job.stopper.agreed()
        evaluates, saves = every.evaluation(state.step) or last, every.save(state.step) or last or bool(stop)
        if evaluates or saves:
            lines.finish()
            with clock.outside():
                if evaluates:
                    evaluate_split(job, "val")
                if saves:
                    clock.bring_up(state)
                    began = time.monotonic()
                    job.store.save(state.step, capture(job.parts, state, job.ranks.rank))
                    job.stopper.deadline.saved(time.monotonic() - began)
        if last or stop:
            job.stopper.settle()
            return "" if last else stop
    return ""  # resumed from a checkpoint of the last step


def _updates(job: Job) -> Iterator[Any]:
    """Micro-batches of each update from the state's step on, epoch after epoch."""
    per_epoch = job.loader.steps_per_epoch
    while job.state.step < job.steps:
        epoch, start = divmod(job.state.step, per_epoch)
        yield from job.loader.steps(epoch, start)


def evaluate_split(job: Job, split: str) -> dict[str, float]:
    """One split with the weights that are evaluated; logged, shown, returned. Empty where the split is."""
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
