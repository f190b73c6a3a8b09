"""The loop: step, log, evaluate, save, stop. The order within a step is the content; see `train`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from launcher.config.config import TrainConfig
from launcher.node.pulse import BOUNDARY, EVALUATION, SAVE
from launcher.train.checkpoint import history
from launcher.train.ema import averaged_buffers
from launcher.train.evaluate import evaluate
from launcher.train.guard.guard import BadNumbers
from launcher.train.guard.rollback import roll_back
from launcher.train.job import Job
from launcher.train.record.clock import Clock
from launcher.train.record.lines import Lines
from launcher.train.stop import REASONS


def train(job: Job) -> str:
    """Train from where the state is. Returns why it stopped before the last step, empty when all are done; saved either way.

    Within a step: update, then log, then evaluate, then save. So a checkpoint at step n has everything up to n in its metrics, and
    an attempt that resumes from it repeats nothing before n and misses nothing after.
    """
    clock = Clock()
    lines = Lines(job, clock)
    if job.config.on_bad == "rollback" and job.state.step == 0:
        history.save(job)  # else there would be nothing to go back to
    while True:
        try:
            return _go_on(job, clock, lines)
        except BadNumbers as bad:
            lines.drop()
            with job.stopper.deadline.outside(SAVE):
                roll_back(job, bad)
            clock.restart()  # what was undone is no part of the run's seconds, as after a kill


def _go_on(job: Job, clock: Clock, lines: Lines) -> str:
    """The steps from where the state is. Raises BadNumbers on every rank at the same step."""
    state, saver, deadline = job.state, job.saver, job.stopper.deadline
    evaluates_at = _evaluations(job.config, job.loader.steps_per_epoch, job.steps)
    reach = range(job.agreement.reach + 1)
    for micro_batches in clock.watch(_updates(job)):
        if state.step == 0:
            job.task.show_batch(job.board, micro_batches[0], 0)
        last = state.step + 1 == job.steps
        log = last or (state.step + 1) % job.config.log_every == 0
        look = job.layers.around(state.step + 1)
        norm = job.stepper(micro_batches, job.schedule(state.step, job.steps), log or look is not None, look)
        clock.own(job.stepper.ready)
        job.ema.update(state.step)
        job.watch.at(BOUNDARY)
        state.step += 1
        state.samples += job.config.batch_size
        job.where["step"] = state.step
        job.replicas.look(state.step)
        _show_layers(job, state.step)
        lines.finish()  # of the step before: while this step ran, its numbers came to the host
        if log:
            lines.begin(norm)
        stop = job.stopper.look(sum(evaluates_at(state.step + ahead) for ahead in reach))
        stop, due, failed, *limits = job.agreement.exchange(stop, saver.is_due(), saver.has_failed(), *job.watch.learned())
        job.watch.agree(*limits)
        if failed:
            saver.wait()
        evaluates, saves = evaluates_at(state.step), due or saver.interval.by_step(state.step) or last or stop
        if evaluates or saves:
            lines.finish()
            job.replicas.finish()
        if saves:
            job.replicas.compare(state.step)
            _show_layers(job, state.step + 1)
        if evaluates:
            with clock.outside(EVALUATION), deadline.outside(EVALUATION):
                evaluate_split(job, "val")
        if saves:
            job.watch.outside(SAVE)
            clock.bring_up(state)
            with clock.outside(SAVE), deadline.outside(SAVE):
                history.save(job)
            if job.ranks.is_first:
                deadline.note()
        if last or stop:
            with clock.outside(SAVE):
                saver.wait()
            clock.bring_up(state)
            job.agreement.settle()
            return "" if last else REASONS[stop]
    return ""  # resumed from a checkpoint of the last step


def _show_layers(job: Job, before: int) -> None:
    """The look that was begun before that step, if one was."""
    for warning in job.layers.finish(before, job.board):
        print(f"warning: {warning}")


def _updates(job: Job) -> Iterator[Any]:
    """Micro-batches of each update from the state's step on, epoch after epoch."""
    per_epoch = job.loader.steps_per_epoch
    while job.state.step < job.steps:
        epoch, start = divmod(job.state.step + job.state.passed_over, per_epoch)
        micro_batches = job.loader.steps(epoch, start)
        while update := _next(job, micro_batches):
            yield update


def _next(job: Job, micro_batches: Iterator[Any]) -> tuple[Any, ...]:
    job.watch.step(job.state.step)
    return tuple(itertools.islice(micro_batches, job.config.accumulate))


def evaluate_split(job: Job, split: str) -> dict[str, float]:
    """One split with the weights that are evaluated; logged, shown, returned. Empty where the split is."""
    job.watch.outside(EVALUATION)
    part = job.loader.evaluation(split)
    if part.samples == 0:
        return {}
    with job.ema.applied(), torch.no_grad(), averaged_buffers(job.inner, job.ranks):
        totals = evaluate(job.inner, job.task, part, job.ranks)
    values = job.task.eval_metrics(totals)
    if job.ranks.is_first:
        step = job.state.step
        job.metrics.write(step, split, **values)
        job.board.scalars(step, split, {name: value for name, value in values.items() if name != "samples"})
        job.task.show_evaluation(job.board, totals, split, getattr(job.data, "class_names", ()), step)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "samples")
        print(f"{split} at step {step}: {shown}  ({values['samples']:,} samples)")
    return values


def _evaluations(config: TrainConfig, per_epoch: int, steps: int) -> Callable[[int], bool]:
    """Which steps evaluate; the last one does."""
    interval = per_epoch if config.eval_every == "auto" else config.eval_every
    return lambda step: step == steps or (interval > 0 and step % interval == 0)
