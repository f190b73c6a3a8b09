"""From the frozen config to objects, and from objects to a finished run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import accelerate
import torch

from launcher.config import dialect, targets
from launcher.config.config import TrainConfig
from launcher.node.entry import enter, read_config
from launcher.node.place import Place
from launcher.node.pulse import END
from launcher.plan import Plan
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir, read_text, write_atomic
from launcher.strategies import draws
from launcher.strategies.protocol import Strategy
from launcher.train import arithmetic, loop, seeds
from launcher.train.build import Process, build
from launcher.train.checkpoint.history import go_to
from launcher.train.checkpoint.state import inexact
from launcher.train.checkpoint.stored import foreign, stored_precision
from launcher.train.guard import rollback
from launcher.train.job import Job
from launcher.train.precision import agree
from launcher.train.record.board import Board
from launcher.train.record.metrics import last
from launcher.train.record.spent import spent
from launcher.train.record.told import told
from launcher.train.world import world
from launcher.train.world.patience import Patience
from launcher.trust import vault, vault_key


def work(run: RunDir, plan: Plan, place: Place, where: dict[str, Any]) -> None:
    """Build, restore, train, test, close the run. `where["step"]` is kept up to date for whoever reports an error."""
    config = read_config(run)
    where["refused"] = True
    if config["train"].get("encrypt"):  # before anybody is met, for who has no key says so and nobody waits
        vault_key.needed("train.encrypt=true")
        vault.check()
    where["refused"] = False
    claim = enter(run, place, where)
    process = join(run, plan, place, claim, config, where, run.checkpoints)
    if process.ranks.from_first(_is_done(run)):
        world.leave(process.accelerator, process.ranks)  # while we waited for the lock, another attempt finished the run
        return
    job = build(process, config)
    _begin(run, place, job, config)
    stopped = loop.train(job)
    test = {} if stopped else loop.evaluate_split(job, "test")
    job.watch.outside(END)
    job.loader.close()
    _close(run, plan, place, job, process.precision, stopped, test)
    del job
    world.leave(process.accelerator, process.ranks)


def join(run: RunDir, plan: Plan, place: Place, claim: Claim, config: dict[str, Any], where: dict[str, Any], checkpoints: Path) -> Process:
    """Meet the others, and agree with them on how to compute: as those `checkpoints` were, where there are any."""
    train = TrainConfig(**config["train"])
    device = world.device(plan, place)
    strategy: Strategy = targets.build(config["strategy"])
    patience = Patience.of(train.hang_seconds)
    world.join(plan, place, patience)
    ranks = world.ranks(place, patience, "ranks")
    precision, reason = agree(train.precision, device, ranks, ranks.from_first(stored_precision(checkpoints) if ranks.is_first else ""))
    speed = arithmetic.set_speed(device, train.deterministic)
    accelerator = world.accelerate(plan, place, strategy)
    peers, savers = world.peers(plan.mesh, place, patience, ranks), world.ranks(place, patience, "saving")
    if ranks.is_first:
        print(f"{plan.name}/{plan.id}: {plan.world}, {plan.threads} threads each; precision {precision} ({reason})")
        if plan.chosen:
            print(plan.chosen)
        if speed:
            print(speed)
    device_mesh = world.device_mesh(plan.mesh, place, patience, device)
    coordinate = plan.mesh.at(place.rank)
    return Process(run, place, coordinate, accelerator, precision, claim, ranks, peers, savers, device_mesh, _end_of_job(), where)


def _is_done(run: RunDir) -> bool:
    summary = run.read_summary()
    return summary is not None and summary["state"] == "done"


def _end_of_job() -> float | None:
    """Seconds since the epoch, as the batch shell has it from the scheduler."""
    text = os.environ.get("LAUNCHER_DEADLINE", "")
    return float(text) if text.isdecimal() else None


def _begin(run: RunDir, place: Place, job: Job, config: dict[str, Any]) -> None:
    """Restore the newest good checkpoint, if there is one, and open what rank 0 writes."""
    say = print if job.ranks.is_first else lambda text: None
    checkpoint = job.store.load(say)
    if checkpoint is not None:
        draws.plant(seeds.of_coordinate(config["seed"], job.coordinate, checkpoint.step))  # for a share that there was none of
        go_to(job, checkpoint)
        say(f"resumed from {checkpoint.path.name}")
        if warning := foreign(checkpoint):
            say(f"warning: {warning}")
        if doubt := inexact(job.parts.device, job.config.deterministic):
            say(doubt)
    job.state.rollbacks = max(job.state.rollbacks, job.ranks.from_first(rollback.so_far(run) if job.ranks.is_first else 0))
    if not job.ranks.is_first:
        return
    run.summary.unlink(missing_ok=True)
    replayed = job.metrics.rewind(job.state.step)
    run.log_event("started", attempt=place.attempt, restart=place.restart, step=job.state.step, steps=job.steps, replayed=replayed)
    job.board = Board(run.tensorboard, first_step=job.state.step + 1 if checkpoint else 0)
    job.board.text("config", "\n".join(f"    {line}" for line in read_text(run.config).splitlines()))
    if job.is_standin:
        job.board.text("data", "THE BUILT-IN STAND-IN, not the real data set")


def _close(run: RunDir, plan: Plan, place: Place, job: Job, precision: str, stopped: str, test: dict[str, float]) -> None:
    """summary.json, the last events, and the word for the batch shell. Rank 0 alone; the others only wait for it."""
    if job.ranks.is_first:
        state = job.state
        final = {f"val_{name}": value for name, value in last(run.metrics, "val").items()}
        final |= {f"test_{name}": value for name, value in test.items() if name != "samples"}
        ended = "stopped" if stopped else "done"
        speed = state.samples / max(state.train_seconds, 1e-9)
        summary = {
            "state": ended,
            "stopped_by": stopped or None,
            "name": plan.name,
            "id": plan.id,
            "ended_by": state.ended or None,
            "best": {"step": state.best_step, "value": state.best_value} if state.best_step else None,
            **final,
            "steps": state.step,
            "samples": state.samples,
            "seconds": state.seconds,
            "samples_per_second": speed,
            **job.throughput.at(speed),
            **spent(run, state, place.attempt),
            "attempt": place.attempt,
            "attempts": sum(event["event"] == "started" for event in run.read_events()),
            "data_is_standin": job.is_standin,
            "precision": precision,
            "world": str(plan.world),
            "torch": torch.__version__,
            "accelerate": accelerate.__version__,
            "finished": time.time(),
        }
        if not stopped:
            settings = told(dialect.read(read_text(run.config)), plan.overrides)
            job.board.hparams(settings, {f"hparam/{name}": value for name, value in final.items()}, state.step)
        job.board.close()
        write_atomic(run.summary, json.dumps(summary, indent=2) + "\n")
        run.log_event(ended, attempt=place.attempt, step=state.step)
        write_atomic(run.outcome(place.attempt), f"{ended} {stopped}".strip() + "\n")
    job.ranks.wait()
