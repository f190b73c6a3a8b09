"""From the frozen config to objects, and from objects to a finished run."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import accelerate
import torch
from accelerate import Accelerator
from omegaconf import OmegaConf

from launcher.config import dialect, home, references, targets
from launcher.config.config import OLDER, TrainConfig
from launcher.errors import ConfigError, RunError
from launcher.node.place import Place
from launcher.node.pulse import END
from launcher.plan import Plan, Strategy
from launcher.rundir import lock
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir, read_text, write_atomic
from launcher.train import data_set, loop, optimizers, seeds
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.history import go_to
from launcher.train.checkpoint.saver import Interval, Saver
from launcher.train.checkpoint.state import Parts, inexact, replicated
from launcher.train.checkpoint.stored import TrainState, examine, foreign, stored_precision
from launcher.train.ema import Ema, NoEma
from launcher.train.guard import rollback
from launcher.train.guard.guard import Guard
from launcher.train.guard.layers import Layers
from launcher.train.guard.replicas import Replicas
from launcher.train.guard.skip import Skipper
from launcher.train.job import Job
from launcher.train.precision import agree
from launcher.train.prepare import exit_code, user_line
from launcher.train.record.account import account
from launcher.train.record.board import Board, NoBoard
from launcher.train.record.metrics import Meter, MetricsFile, last
from launcher.train.record.told import told
from launcher.train.step import Stepper
from launcher.train.stop import Deadline, Stopper
from launcher.train.watch import NoWatch, Watch
from launcher.train.world import world
from launcher.train.world.agreement import Agreement
from launcher.train.world.patience import Patience
from launcher.train.world.ranks import Ranks

LOCK_PATIENCE_SECONDS = 10.0


def work(run: RunDir, plan: Plan, place: Place, where: dict[str, Any]) -> None:
    """Build, restore, train, test, close the run. `where["step"]` is kept up to date for whoever reports an error."""
    config = read_config(run)
    claim = Claim(run, place.attempt)
    if place.rank == 0:
        job_id = os.environ.get("LAUNCHER_JOB")
        where["refused"] = (
            True  # whoever is refused here has begun nothing, and its attempt leaves no trace (launcher/clusters/local/attend.py)
        )
        lock.hold(run.lock, f"attempt {place.attempt}", LOCK_PATIENCE_SECONDS, job_id)
        if job_id is None:  # a batch job's shell has claimed the run already
            claim.take()
        claim.check()
        where["refused"] = False
    train = TrainConfig(**config["train"])
    device = world.device(plan, place)
    strategy: Strategy = targets.build(config["strategy"])
    patience = Patience.of(train.hang_seconds)
    world.join(plan, place, patience)
    ranks = world.ranks(place, patience, "ranks")
    precision, reason = agree(train.precision, device, ranks, ranks.from_first(stored_precision(run.checkpoints) if ranks.is_first else ""))
    accelerator = world.accelerate(plan, place, precision, strategy)
    if ranks.from_first(_is_done(run)):
        world.leave(accelerator, ranks)  # while we waited for the lock, another attempt finished the run
        return
    job = _build(run, place, config, train, accelerator, strategy, ranks, claim, where)
    job.state.precision = precision
    if ranks.is_first:
        print(f"{plan.name}/{plan.id}: {plan.world}, {plan.threads} threads each; precision {precision} ({reason})")
    _begin(run, place, job, config)
    stopped = loop.train(job)
    test = {} if stopped else loop.evaluate_split(job, "test")
    job.watch.outside(END)
    job.loader.close()
    _close(run, plan, place, job, precision, stopped, test)
    del job
    world.leave(accelerator, ranks)


def _is_done(run: RunDir) -> bool:
    summary = run.read_summary()
    return summary is not None and summary["state"] == "done"


def read_config(run: RunDir) -> dict[str, Any]:
    """The frozen config, with `${oc.env:…}` read here. Raises ConfigError for a target outside the allowlist."""
    values: Any = {**OLDER, **home.everywhere(references.resolved(OmegaConf.create(dialect.read(read_text(run.config)))))}
    targets.check_trust(values["trust"])
    targets.check(values, values["trust"])
    return values


@contextlib.contextmanager
def _data_errors() -> Iterator[None]:
    """What a data set says of its files is for the user: one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        kind = RunError if exit_code(error) == RunError.exit_code else ConfigError
        raise kind(user_line(error)) from error


def _build(
    run: RunDir,
    place: Place,
    config: dict[str, Any],
    train: TrainConfig,
    accelerator: Accelerator,
    strategy: Strategy,
    ranks: Ranks,
    claim: Claim,
    where: dict[str, Any],
) -> Job:
    device = accelerator.device
    patience = Patience.of(train.hang_seconds)
    watch = Watch(run, place, ranks, train.hang_seconds, patience.watch, device.type) if patience.watch else NoWatch()
    agreement, metrics = Agreement(ranks), MetricsFile(run.metrics)
    deadline = Deadline(_end_of_job(), run.attempt(place.attempt) / "trained", agreement.reach)
    own = world.ranks(place, patience, "saving")
    store = CheckpointStore(run.checkpoints, own, claim, place.attempt, train.keep, metrics.sync, examine)
    interval = Interval(None if train.save_every == "auto" else train.save_every, 3600 * train.mtbf_hours)
    stopper = Stopper(run.stop, ranks, claim, deadline)  # before what takes long: a signal that comes meanwhile must count
    if train.deterministic:
        torch.use_deterministic_algorithms(True)
    seeds.plant(seeds.of_weights(config["seed"]))  # the same on every rank: initial weights
    data, loader = _data(config, train, ranks, device)
    inner = targets.build(config["model"])
    task = targets.build(config["task"])
    schedule = targets.build(config["schedule"])
    inner = inner.to(device=device, memory_format=torch.channels_last) if train.channels_last else inner.to(device)
    if train.compile:
        inner.compile()
    ranks.wait()  # over gloo, before DDP makes the first call of NCCL: that one waits without a phase that anybody watches
    model = strategy.wrap(accelerator, inner)
    optim = optimizers.build(config["optim"], inner)
    seeds.plant(seeds.of_rank(config["seed"], ranks.rank))  # another on every rank: dropout
    skips = train.on_bad == "skip"
    meter = Meter(task.train_sums + skips, device)
    skipper = Skipper(inner, optim, meter, accelerator.scaler is not None) if skips else None
    ema = Ema(inner, train.ema_decay) if train.ema_decay > 0 else NoEma()
    layers = Layers(inner, train.layers_every if ranks.is_first else 0)
    parts = Parts(inner, optim, accelerator.scaler, ema, meter, device, layers)
    return Job(
        run=run,
        config=train,
        steps=train.steps or train.epochs * loader.steps_per_epoch,
        state=TrainState(),
        parts=parts,
        ema=ema,
        inner=inner,
        stepper=Stepper(model, optim, accelerator.scaler, task, meter, train.clip_norm, strategy.no_sync, watch, skipper),
        schedule=schedule,
        task=task,
        data=data,
        loader=loader,
        ranks=ranks,
        store=store,
        saver=Saver(store, interval, deadline, ranks.rank),
        stopper=stopper,
        guard=Guard(train.spike),
        replicas=Replicas(lambda: replicated(parts), ranks, train.compare_every),
        layers=layers,
        watch=watch,
        agreement=agreement,
        metrics=metrics,
        board=NoBoard(),
        where=where,
    )


class Share(NamedTuple):
    """Which of a batch's shares is this process's."""

    dp_rank: int
    dp_size: int


def _data(config: dict[str, Any], train: TrainConfig, ranks: Ranks, device: torch.device) -> tuple[Any, Any]:
    """The data set, of which one object may be asked what it is, and its loader, open. Raises ConfigError or RunError."""
    with _data_errors():
        data = data_set.build(config["data"])
        asked = {"batch_size": train.batch_size, "accumulate": train.accumulate, "seed": config["seed"]}
        loader = targets.build(config["loader"], data=data, **asked)
        loader.open(Share(ranks.rank, ranks.world), device)
    if loader.steps_per_epoch < 1:
        raise ConfigError(f"train.batch_size={train.batch_size} is more than the {loader.samples} training samples; type a smaller one")
    return data["train"] if isinstance(data, dict) else data, loader


def _end_of_job() -> float | None:
    """Seconds since the epoch, as the batch shell has it from the scheduler."""
    text = os.environ.get("LAUNCHER_DEADLINE", "")
    return float(text) if text.isdecimal() else None


def _begin(run: RunDir, place: Place, job: Job, config: dict[str, Any]) -> None:
    """Restore the newest good checkpoint, if there is one, and open what rank 0 writes."""
    say = print if job.ranks.is_first else lambda text: None
    checkpoint = job.store.load(say)
    if checkpoint is not None:
        if job.ranks.rank >= checkpoint.world:
            seeds.plant(seeds.of_rank(config["seed"], job.ranks.rank, checkpoint.step))
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
    if getattr(job.data, "standin", False):
        job.board.text("data", "THE BUILT-IN STAND-IN, not the real data set")


def _close(run: RunDir, plan: Plan, place: Place, job: Job, precision: str, stopped: str, test: dict[str, float]) -> None:
    """summary.json, the last events, and the word for the batch shell. Rank 0 alone; the others only wait for it."""
    if job.ranks.is_first:
        state = job.state
        final = {f"val_{name}": value for name, value in last(run.metrics, "val").items()}
        final |= {f"test_{name}": value for name, value in test.items() if name != "samples"}
        ended = "stopped" if stopped else "done"
        summary = {
            "state": ended,
            "stopped_by": stopped or None,
            "name": plan.name,
            "id": plan.id,
            **final,
            "steps": state.step,
            "samples": state.samples,
            "seconds": state.seconds,
            "samples_per_second": state.samples / max(state.train_seconds, 1e-9),
            **account(run, state, place.attempt),
            "attempt": place.attempt,
            "attempts": sum(event["event"] == "started" for event in run.read_events()),
            "data_is_standin": bool(getattr(job.data, "standin", False)),
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
