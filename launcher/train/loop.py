"""The loop: step, log, evaluate, save, stop. The order within a step is the content; see `train`."""

from __future__ import annotations

import torch

from launcher.node.pulse import BOUNDARY, EVALUATION, SAVE
from launcher.train.buffers import averaged_buffers
from launcher.train.checkpoint import history
from launcher.train.evaluate import evaluate
from launcher.train.feed import Feed
from launcher.train.guard.guard import BadNumbers
from launcher.train.guard.rollback import roll_back
from launcher.train.job import Job
from launcher.train.record.clock import Clock
from launcher.train.record.lines import Lines
from launcher.train.stop import REASONS


def train(job: Job) -> str:
    """Train from where the state is. Returns why it stopped before its end, empty when it is over; saved either way.

    Within a step: update, then log, then evaluate, then save. So a checkpoint at step n has everything up to n in its metrics, and
    an attempt that resumes from it repeats nothing before n and misses nothing after.
    """
    clock = job.stepper.clock
    clock.restart()
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
    state, agreement = job.state, job.agreement
    feed = Feed(job.loader, state, job.config.accumulate, job.watch, clock)
    while state.step < job.steps and not state.ended:
        feed.begin(state.step)
        if state.step == 0:
            job.task.show_batch(job.board, feed.peek(), 0)
        last = state.step + 1 == job.steps
        log = last or (state.step + 1) % job.config.log_every == 0
        look = job.parts.layers.around(state.step + 1)
        norm = job.stepper(feed, job.schedule(state.step, job.steps), log or look is not None, look)
        job.parts.ema.update(state.step)
        job.watch.at(BOUNDARY)
        state.step += 1
        state.samples += job.config.batch_size
        job.where["step"] = state.step
        job.replicas.follow(state.step)
        _show_layers(job, state.step)
        lines.finish()  # of the step before: while this step ran, its numbers came to the host
        if log:
            lines.begin(norm)
        stop, due = _agree(job) if last or agreement.is_due(state.step) else (0, 0)
        if REASONS[stop] == "seconds":
            state.ended = "" if last else "seconds"
        saves = due or job.saver.interval.by_step(state.step) or last or stop
        if job.evaluates_at(state.step) or saves:
            _pause(job, clock, lines, saves)
        if last or stop or state.ended:
            with clock.outside(SAVE):
                job.saver.wait()
            clock.bring_up(state)
            agreement.settle()
            return "" if last or state.ended else REASONS[stop]
    return ""  # resumed from a checkpoint of the end


def _agree(job: Job) -> tuple[int, int]:
    """Why to stop here, as a number of REASONS, and whether a save is due: the same on all ranks."""
    step, reach, saver = job.state.step, job.agreement.reach, job.saver
    stop = job.stopper.reason(step, reach, sum(job.evaluates_at(step + ahead) for ahead in range(reach + 1)))
    if job.config.seconds is not None and job.stepper.clock.so_far(job.state) >= job.config.seconds:
        stop = max(stop, REASONS.index("seconds"))
    stop, due, failed, *limits = job.agreement.exchange(step, stop, saver.is_due(), saver.has_failed(), *job.watch.learned())
    job.watch.agree(*limits)
    if failed:
        saver.wait()
    return stop, due


def _pause(job: Job, clock: Clock, lines: Lines, saves: bool | int) -> None:
    """Evaluate, if it is time to, then save, if that is due: everything up to this step is logged before, and compared."""
    state, deadline = job.state, job.stopper.deadline
    lines.finish()
    job.replicas.finish()
    if job.evaluates_at(state.step) or state.ended:
        with clock.outside(EVALUATION), deadline.outside(EVALUATION):
            said = job.ends.judge(state, job.ranks.from_first(evaluate_split(job, "val")))  # by the last bit the same
        if said and job.ranks.is_first:
            print(said)
        saves = bool(saves or state.ended or (job.config.keep_best and state.best_step == state.step))
    if saves:
        job.replicas.compare(state.step)
        _show_layers(job, state.step + 1)
        job.watch.outside(SAVE)
        clock.bring_up(state)
        with clock.outside(SAVE), deadline.outside(SAVE):
            history.save(job)
        if job.ranks.is_first:
            deadline.note()


def _show_layers(job: Job, before: int) -> None:
    """The look that was begun before that step, if one was."""
    for warning in job.parts.layers.finish(before, job.board):
        if job.ranks.is_first:  # others have the same where each holds a piece
            print(f"warning: {warning}")


def evaluate_split(job: Job, split: str) -> dict[str, float]:
    """One split with the weights that are evaluated; logged, shown, returned. Empty where the split is."""
    job.watch.outside(EVALUATION)
    part = job.loader.evaluation(split)
    if part.samples == 0:
        return {}
    parts = job.parts
    what = f"evaluating: {split}" if job.ranks.is_first else ""
    parts.optimizers.make_way()  # for the average, which takes the place of weights that may still be copied
    with parts.ema.applied(), torch.no_grad(), averaged_buffers(parts.model, job.peers):
        metrics, values = evaluate(
            parts.model, job.evaluated, job.task, part, job.ranks, job.coordinate.counts_samples, job.stepper.is_collective, what
        )
        job.stepper.release()
    if job.ranks.is_first:
        step = job.state.step
        job.metrics.write(step, split, **values)
        job.board.scalars(step, split, {name: value for name, value in values.items() if name != "samples"})
        job.task.show_evaluation(job.board, metrics, split, job.class_names, step)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "samples")
        print(f"{split} at step {step}: {shown}  ({values['samples']:,} samples)")
    return values
