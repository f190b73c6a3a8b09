"""`drill {preempt|timeout|nodefail|crash} +exp=…`: does a bad night to the user's own config on the user's own cluster, and looks on.

preempt    TERM to every process of the step, as preemption sends it: saves, is requeued, goes on where it was
timeout    the scheduler's warning to the batch shell: the same
nodefail   every process killed and the nodes taken for lost: is requeued, goes on from the newest checkpoint
crash      every process killed: ends, is not requeued; `resume` goes on from the newest checkpoint
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from launcher.clusters import queues
from launcher.clusters.protocol import Cluster
from launcher.compose import scripted
from launcher.compose.compose import compose
from launcher.compose.freeze import freeze
from launcher.errors import ConfigError, TrainingFailed
from launcher.rundir.rundir import RunDir, read_jsonl
from launcher.start import inside
from launcher.start.choices import batch
from launcher.start.launch import go_on, launch
from launcher.verdict import standing

KINDS = ("preempt", "timeout", "nodefail", "crash")
STEPS = 1_000_000
"""More than the drill waits for: it ends the run itself."""
SAVE_EVERY = 5
PROOF_STEPS = 3
"""After going on, this many steps more are proof enough."""
PATIENCE_SECONDS = 900.0
"""For one thing to happen, time in the queue not counted."""


def drill(words: list[str]) -> int:
    """Prints what it did and saw; the last line of stdout is the run directory. Raises TrainingFailed where a promise was not kept."""
    inside.refuse(os.environ)
    kind, rest = (words[0] if words else ""), words[1:]
    if kind not in KINDS:
        example = f"drill preempt +exp=cifar cluster={batch()}"
        raise ConfigError(f"drill {kind}: type one of {', '.join(KINDS)}, then the words of a run; for example: {example}")
    found: list[tuple[RunDir, Cluster]] = []
    compose(rest, lambda config, overrides: found.append(_submit(kind, config, overrides)))
    run, cluster = found[0]
    try:
        _Drill(run, cluster).do(kind)
    finally:
        _end(run, cluster)
    print(run, flush=True)
    return 0


def _submit(kind: str, config: DictConfig, overrides: list[str]) -> tuple[RunDir, Cluster]:
    """The user's run with steps to spare and checkpoints close together."""
    scripted.refuse(config, "drill")
    config.name = f"drill-{config.name}"[:64]
    config.train.steps, config.train.save_every, config.train.log_every, config.train.eval_every = STEPS, SAVE_EVERY, 1, 0
    cluster = freeze(config, overrides).cluster
    if cluster.attached:
        raise ConfigError(f"drill: proves requeueing, which is a scheduler's; type cluster={batch()}, as a job of its own")
    if kind not in cluster.drills:
        raise ConfigError(f"drill {kind}: this cluster can be drilled by {', '.join(cluster.drills) or 'nothing'}; type another cluster=…")
    return launch(config, overrides), cluster


def _end(run: RunDir, cluster: Cluster) -> None:
    job = cluster.job_of(run)
    if job is not None:
        run.log_event("cancelled", job=job.id)
        cluster.cancel([job])


class _Drill:
    def __init__(self, run: RunDir, cluster: Cluster) -> None:
        self._run = run
        self._cluster = cluster

    def do(self, kind: str) -> None:
        self._until(lambda: self._step() > SAVE_EVERY, "the first steps")
        _say(f"step {self._step()}: {kind}")
        self._cluster.strike(kind, self._run)
        if kind == "crash":
            self._crashed()
        started = self._until(lambda: self._started()[1:], "the second attempt")[0]
        self._until(lambda: self._step() >= started["step"] + PROOF_STEPS, "steps of the second attempt")
        self._judge(kind, int(started["step"]))

    def _crashed(self) -> None:
        self._until(lambda: not standing.standing(self._run, queues.ask([self._run])).alive, "the end of the job")
        if any(event["event"] == "requeued" for event in self._run.read_events()):
            raise TrainingFailed(f"{self._run}: a crash was requeued; it would crash again and again")
        _say("ended, and not requeued; resuming it")
        go_on(self._run)

    def _judge(self, kind: str, went_on: int) -> None:
        stopped = [int(event["step"]) for event in self._run.read_events() if event["event"] == "stopped"]
        if kind in ("preempt", "timeout") and stopped[:1] != [went_on]:
            raise TrainingFailed(
                f"{self._run}: it stopped at step {stopped[:1]} and went on at {went_on}; see: python -m launcher why {self._run}"
            )
        if went_on == 0:
            raise TrainingFailed(f"{self._run}: it started over; see: python -m launcher why {self._run}")
        kept = "nothing was lost" if stopped else f"at most {SAVE_EVERY} steps were done again"
        _say(f"went on at step {went_on}, {kept}: {kind} is survived")

    def _started(self) -> list[dict[str, Any]]:
        return [event for event in self._run.read_events() if event["event"] == "started"]

    def _step(self) -> int:
        return max((int(record["step"]) for record in read_jsonl(self._run.metrics)), default=0)

    def _until(self, happened: Callable[[], Any], what: str) -> Any:
        """What `happened` returns once it is true. Raises TrainingFailed where the run ends first, or it takes too long."""
        began, asked = time.monotonic(), 0.0
        while not (result := happened()):
            time.sleep(0.2)
            if time.monotonic() - asked < 5:
                continue
            asked = time.monotonic()
            now = standing.standing(self._run, queues.ask([self._run]))
            if now.waits:
                began = time.monotonic()
            if not now.alive and now.word != "unknown" and not happened():
                raise TrainingFailed(f"{self._run}: it is {now.word} before {what}; see: python -m launcher why {self._run}")
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise TrainingFailed(
                    f"{self._run}: no sign of {what} for {PATIENCE_SECONDS:.0f} s; see: python -m launcher why {self._run}"
                )
        return result


def _say(text: str) -> None:
    print(f"drill: {text}", flush=True)
