"""The lines of metrics.jsonl about training: begun at one step, written at the next, so that no step waits for the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from launcher.rundir.progress import step_line
from launcher.train.guard.stragglers import Stragglers
from launcher.train.job import Job
from launcher.train.record.clock import Clock
from launcher.train.record.metrics import Fetch, memory_bytes


@dataclass(frozen=True)
class _Begun:
    """A line whose numbers are on their way to the host."""

    step: int
    steps: int
    """Since the line before."""
    sums: Fetch
    samples: int
    norm: Fetch | None
    known: dict[str, Any]
    updates: int
    """Of the steps, those of this attempt: the clock has seen no others."""
    seconds_per_step: float
    scale: Fetch | None
    """Of fp16 gradients."""
    own_seconds: float
    """Of all updates of the line, until this rank first waited for the others."""


class Lines:
    """At most one line is under way. Every rank calls the same methods at the same steps, for the totals are summed over all."""

    def __init__(self, job: Job, clock: Clock) -> None:
        self._job = job
        self._clock = clock
        self._begun: _Begun | None = None
        self._stragglers = Stragglers()

    def begin(self, norm: torch.Tensor | None) -> None:
        """Close the steps since the last line: start the copies, read the clock."""
        job, state, steps = self._job, self._job.state, self._job.stepper.meter.steps
        sums, samples = job.stepper.meter.take()
        lap = self._clock.lap()
        updates = max(1, lap.updates)
        known = {
            "epoch": state.step / job.loader.steps_per_epoch,
            "samples": state.samples,
            "samples_per_second": updates * job.config.batch_size / lap.steps,
            "step_seconds": lap.steps / updates,
            "data_seconds": lap.waited / updates,
            "memory_bytes": memory_bytes(job.parts.device),
        }
        known["lr"] = job.stepper.optimizers.lr
        norm_on_its_way = None if norm is None else Fetch(norm)
        self._begun = _Begun(state.step, steps, sums, samples, norm_on_its_way, known, updates, lap.steps / updates, self._scale(), lap.own)

    def _scale(self) -> Fetch | None:
        scaler = self._job.parts.scaler
        scale = None if scaler is None else scaler._get_scale_async()  # get_scale() would wait for the device
        return None if scale is None else Fetch(scale)

    def drop(self) -> None:
        """Forget the line under way."""
        self._begun = None

    def finish(self) -> None:
        """Write the line under way, if there is one: means over its steps, over all ranks. Raises BadNumbers on all of them."""
        if self._begun is None:
            return
        begun, self._begun, job = self._begun, None, self._job
        own_times = [begun.own_seconds if rank == job.ranks.rank else 0.0 for rank in range(job.ranks.world)]
        own = torch.tensor([*own_times, *begun.sums.value().tolist(), begun.samples], dtype=torch.float64)
        *summed, samples = job.ranks.sum(own).tolist()
        times, sums = summed[: job.ranks.world], summed[job.ranks.world :]
        skipped = 0
        if job.config.on_bad == "skip":
            *sums, counted = sums  # on every rank
            skipped = round(counted / job.ranks.world)
            samples *= 1 - skipped / begun.steps
            self._note_skips(skipped, begun)
        metrics = job.task.train_metrics(sums, samples) if skipped < begun.steps else {}
        job.guard.judge(metrics.get("loss"), begun.step - begun.steps, begun.step)
        if begun.scale is not None:
            job.guard.judge_scale(begun.scale.value().item(), begun.step - begun.steps, begun.step)
        norm = {} if begun.norm is None else {"grad_norm": begun.norm.value().item()}
        if not job.ranks.is_first:
            return
        values = {**metrics, **norm, **begun.known, **({"skipped": skipped} if skipped else {})}
        job.metrics.write(begun.step, "train", **values)
        job.board.scalars(begun.step, "train", values)
        shown = {name: values[name] for name in (*metrics, "lr")}
        left = (job.steps - begun.step) * begun.seconds_per_step
        if slow := self._stragglers.judge(times, begun.seconds_per_step * begun.updates, begun.updates):
            print(f"warning: {slow}")
            job.run.log_event("slow_rank", step=begun.step, why=slow)
        print(step_line(begun.step, job.steps, shown, values["samples_per_second"], left))

    def _note_skips(self, skipped: int, begun: _Begun) -> None:
        """Updates of this line that were left out. Raises BadNumbers on every rank where there were too many."""
        job, since = self._job, begun.step - begun.steps
        job.state.skipped += skipped
        if skipped and job.ranks.is_first:
            why = f"{skipped} of the updates {since + 1} to {begun.step} left out: the gradient is not finite"
            print(f"warning: {why}")
            job.run.log_event("skipped", step=begun.step, why=why)
        job.guard.judge_skips(job.state.skipped, job.config.max_skips, since, begun.step)
