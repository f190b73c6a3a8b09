"""The lines of metrics.jsonl about training: line at one step, written at the next, so that no step waits for the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from launcher.rundir.progress import step_line
from launcher.train.guard.stragglers import Stragglers
from launcher.train.guard.waiting import Waiting
from launcher.train.job import Job
from launcher.train.record.clock import Clock
from launcher.train.record.meter import Fetch, Totals
from launcher.train.record.metrics import memory_bytes


@dataclass(frozen=True)
class _Line:
    """A line whose numbers are on their way to the host."""

    step: int
    steps: int
    """Since the line before."""
    totals: Fetch
    weight: int
    norm: Fetch | None
    known: dict[str, Any]
    updates: int
    """Of the steps, those of this attempt: the clock has seen no others."""
    seconds_per_step: float
    scale: Fetch | None
    """Of fp16 gradients."""
    until_ready: float
    """Seconds of all updates of the line, until this rank first waited for the others."""


class Lines:
    """At most one line is under way. Every rank calls the same methods at the same steps, for the totals are summed over all."""

    def __init__(self, job: Job, clock: Clock) -> None:
        self._job = job
        self._clock = clock
        self._pending: _Line | None = None
        self._stragglers, self._waiting = Stragglers(), Waiting()
        self._is_staged = job.coordinate.mesh.is_staged
        self._width = 0
        """Numbers that those have who count, where not all know it."""

    def begin(self, norm: torch.Tensor | None) -> None:
        """Close the steps since the last line: start the copies, read the clock."""
        job, state, steps = self._job, self._job.state, self._job.parts.meter.steps
        totals, weight = job.parts.meter.take()
        lap = self._clock.lap()
        updates = max(1, lap.updates)
        known = {
            "epoch": state.step / job.loader.steps_per_epoch,
            "samples": state.samples,
            "samples_per_second": updates * job.config.batch_size / lap.steps,
            "step_seconds": lap.steps / updates,
            "data_seconds": lap.waited / updates,
            "data_share": lap.waited / lap.steps,
            "memory_bytes": memory_bytes(job.parts.device),
        }
        known["lr"] = job.parts.optimizers.lr
        norm_on_its_way = None if norm is None else Fetch(norm)
        per_step = lap.steps / updates
        self._pending = _Line(state.step, steps, totals, weight, norm_on_its_way, known, updates, per_step, self._scale(), lap.until_ready)

    def _scale(self) -> Fetch | None:
        scaler = self._job.parts.scaler
        scale = None if scaler is None else scaler._get_scale_async()  # get_scale() would wait for the device
        return None if scale is None else Fetch(scale)

    def drop(self) -> None:
        """Forget the line under way."""
        self._pending = None

    def finish(self) -> None:
        """Write the line under way, if there is one: means over its steps, over all ranks. Raises BadNumbers on all of them."""
        if self._pending is None:
            return
        line, self._pending, job = self._pending, None, self._job
        times, totals, weight = self._joined(line)
        job.throughput.note(weight + totals.weight, line.steps * job.config.batch_size)
        skipped = 0
        if job.config.on_bad == "skip":
            skipped = round(totals.left_out / job.counting)
            weight *= 1 - skipped / line.steps
            self._note_skips(skipped, line)
        metrics = job.task.train_metrics(totals.loss, weight + totals.weight, totals.statistics) if skipped < line.steps else {}
        job.guard.judge(metrics.get("loss"), line.step - line.steps, line.step)
        if line.scale is not None:
            job.guard.judge_scale(line.scale.value().item(), line.step - line.steps, line.step)
        norm = {} if line.norm is None else {"grad_norm": line.norm.value().item()}
        if not job.ranks.is_first:
            return
        speed = job.throughput.at(line.known["samples_per_second"])
        values = {**metrics, **norm, **line.known, **speed, **({"skipped": skipped} if skipped else {})}
        job.metrics.write(line.step, "train", **values)
        job.board.scalars(line.step, "train", values)
        shown = {name: values[name] for name in (*metrics, "lr")}
        left = (job.steps - line.step) * line.seconds_per_step
        whole = line.seconds_per_step * line.updates
        if slow := "" if self._is_staged else self._stragglers.judge(times, whole, line.updates):  # a stage waits for the one before
            print(f"warning: {slow}")
            job.run.log_event("slow_rank", step=line.step, why=slow)
        stages = getattr(job.loader, "stages", dict)()
        if slow := self._waiting.judge(line.known["data_share"] * whole, whole, line.updates, stages):
            print(f"warning: {slow}")
        print(step_line(line.step, job.steps, shown, values["samples_per_second"], left))

    def _joined(self, line: _Line) -> tuple[list[float], Totals, float]:
        """Of all ranks: seconds of each until it was ready; totals and weight of those that count, summed."""
        ranks, own = self._job.ranks, [line.weight, *line.totals.value().tolist()]
        if self._is_staged and not self._width:
            self._width = max(ranks.gather(len(own)))
        counted = own if self._job.coordinate.counts else [0.0] * (self._width or len(own))
        times = [line.until_ready if rank == ranks.rank else 0.0 for rank in range(ranks.size)]
        summed = ranks.sum(torch.tensor([*times, *counted], dtype=torch.float64)).tolist()
        weight, *totals = summed[ranks.size :]
        return summed[: ranks.size], Totals.of(totals), weight

    def _note_skips(self, skipped: int, line: _Line) -> None:
        """Updates of this line that were left out. Raises BadNumbers on every rank where there were too many."""
        job, since = self._job, line.step - line.steps
        job.state.skipped += skipped
        if skipped and job.ranks.is_first:
            why = f"{skipped} of the updates {since + 1} to {line.step} left out: the gradient is not finite"
            print(f"warning: {why}")
            job.run.log_event("skipped", step=line.step, why=why)
        job.guard.judge_skips(job.state.skipped, job.config.max_skips, since, line.step)
