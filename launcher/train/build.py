"""The objects that a process trains with, made of its frozen config: for a run, and for whoever measures the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from launcher.config import layout, pretrained, targets
from launcher.config.config import TrainConfig
from launcher.errors import ConfigError, RunError
from launcher.node.place import Place
from launcher.plan import Coordinate
from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir
from launcher.strategies import draws
from launcher.strategies.protocol import Split, Strategy
from launcher.train import activations, arithmetic, data_set, faster, optimizers, seeds
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.manifest import by_step
from launcher.train.checkpoint.pieces import alike
from launcher.train.checkpoint.saver import Interval, Saver
from launcher.train.checkpoint.state import Parts, replicated
from launcher.train.checkpoint.stored import TrainState, examine
from launcher.train.closure import Closure
from launcher.train.deadline import Deadline
from launcher.train.ema import Ema, NoEma
from launcher.train.ends import Ends
from launcher.train.guard.guard import Guard
from launcher.train.guard.layers import Layers
from launcher.train.guard.replicas import Replicas
from launcher.train.guard.skip import Skipper
from launcher.train.job import Job
from launcher.train.loss import Loss, Shares
from launcher.train.norm import Norm
from launcher.train.record import peaks
from launcher.train.record.clock import Clock
from launcher.train.record.meter import Meter
from launcher.train.record.metrics import MetricsFile
from launcher.train.record.throughput import Throughput, flops_of
from launcher.train.robust.adversary import Adversary, Asked, Placed, pixels_of
from launcher.train.step import Stepper
from launcher.train.stop import Stopper
from launcher.train.watch import NoWatch, Watch
from launcher.train.world.agreement import Agreement
from launcher.train.world.patience import Patience
from launcher.train.world.ranks import Ranks
from launcher.trust import vault_key


@dataclass
class Process:
    """One process of a run, before anything is made that trains."""

    run: RunDir
    place: Place
    coordinate: Coordinate
    accelerator: Accelerator
    precision: str
    """bf16 | fp16 | fp32."""
    claim: Claim
    ranks: Ranks
    peers: Ranks
    savers: Ranks
    """All processes, for the thread that saves: its messages never mix with the loop's."""
    device_mesh: DeviceMesh | None = None
    """Where a model is split."""
    end: float | None = None
    """Of the job, in seconds since the epoch."""
    where: dict[str, Any] = field(default_factory=dict[str, Any])


def build(process: Process, config: Mapping[str, Any], loader: Any = None) -> Job:
    """`loader`: one that is open, in place of the config's. Raises ConfigError or RunError for what the config asks and cannot have."""
    train, ranks = TrainConfig(**config["train"]), process.ranks
    agreement, metrics, clock = Agreement(ranks), MetricsFile(process.run.metrics), Clock()
    deadline = Deadline(process.end, process.run.attempt(process.place.attempt) / "trained")
    stopper = Stopper(process.run.stop, ranks, process.claim, deadline)  # before what takes long: a signal that comes meanwhile must count
    watch = _watch(process, train)
    draws.plant(seeds.of_weights(config["seed"]))  # the same on every rank: initial weights
    data, loader = (None, loader) if loader is not None else data_set.opened(config, process.coordinate, process.accelerator.device)
    if len(counts := {count for (count,) in ranks.gather([loader.samples])}) > 1:
        raise RunError(
            f"data: the processes have {' and '.join(map(str, sorted(counts)))} samples to train on; which comes when hangs on how many "
            "there are: let the data set have the same length in all of them"
        )
    at = lambda: job.state.step + job.state.passed_over  # noqa: E731  # whose state a checkpoint replaces
    parts, stepper, task, evaluated = _trained(process, config, train, watch, clock, (data, loader, at))
    if getattr(task, "needs_labels", False):
        with data_set.in_one_line():
            task.learn_labels(torch.from_numpy(loader.labels()))
    store = CheckpointStore(
        process.run.checkpoints,
        process.savers,
        process.claim,
        process.place.attempt,
        train.keep,
        metrics.sync,
        examine,
        vault_key.needed("train.encrypt=true") if train.encrypt else None,
    )
    interval = Interval(None if train.save_every == "auto" else train.save_every, 3600 * train.mtbf_hours)
    steps = train.steps or train.epochs * loader.steps_per_epoch
    job = Job(
        run=process.run,
        config=train,
        steps=steps,
        state=TrainState(precision=process.precision),
        parts=parts,
        stepper=stepper,
        schedule=targets.build(config["schedule"]),
        task=task,
        evaluated=evaluated,
        loader=loader,
        evaluates_at=Evaluations(train.eval_every, loader.steps_per_epoch, steps),
        ends=Ends.of(train.early_stop, config["objective"]),
        coordinate=process.coordinate,
        ranks=ranks,
        peers=process.peers,
        counting=sum(process.coordinate.mesh.at(rank).counts for rank in range(ranks.size)),
        agreement=agreement,
        watch=watch,
        stopper=stopper,
        store=store,
        saver=Saver(store, interval, deadline, ranks.rank),
        guard=Guard(train.spike),
        replicas=Replicas(lambda: replicated(parts), ranks, train.compare_every, alike(ranks.rank, parts.pieces)),
        metrics=metrics,
        throughput=_throughput(process, parts, task, train),
        class_names=tuple(getattr(data, "class_names", ())),
        is_standin=bool(getattr(data, "standin", False)),
        where=process.where,
    )
    return job


def _trained(
    process: Process,
    config: Mapping[str, Any],
    train: TrainConfig,
    watch: Watch | NoWatch,
    clock: Clock,
    fed: tuple[Any, Any, Callable[[], int]],
) -> tuple[Parts, Stepper, Any, Any]:
    """What changes as it trains, what changes it, and the task; the strategy's methods in the order of its protocol. `fed`: the data,
    their loader, and which update's batch is at work."""
    device, coordinate, accelerator = process.accelerator.device, process.coordinate, process.accelerator
    strategy: Strategy = targets.build(config["strategy"])
    known, node = layout.of(config["model"]), _initial(process, config["model"])
    is_nhwc = faster.is_channels_last(train, strategy.takes_channels_last or coordinate.mesh.size == 1, config["optim"]["_target_"])
    model: nn.Module = strategy.build(lambda: _model(node, train, known.blocks, device, is_nhwc), device)
    task = targets.build(config["task"])
    if process.ranks.is_first and (doubt := activations.smaller_batch(model, train, coordinate.dp_size)):
        print(f"warning: {doubt}")
    process.ranks.wait()  # over gloo, before DDP makes the first call of NCCL: that one waits without a phase that anybody watches
    prepared = strategy.prepare(accelerator, model, Split(coordinate, process.device_mesh, known))
    pieces = strategy.pieces(model, coordinate)
    optim = optimizers.build(config["optim"], model)
    optim.is_staged = coordinate.mesh.is_staged
    draws.plant(seeds.of_coordinate(config["seed"], coordinate))  # another for every share of the data: dropout
    fp16, meter = process.precision == "fp16", Meter(device)
    scaler = arithmetic.scaler(device, process.precision, optim.parameters)
    skipper = Skipper(model, optim, meter, fp16) if train.on_bad == "skip" else None
    closure = Closure(optim, model, meter, process.ranks, coordinate.counts, train.clip_norm, fp16) if optim.needs_closure else None
    ema = Ema(model, train.ema_decay) if train.ema_decay > 0 else NoEma()
    layers = Layers(model, train.layers_every, pieces, process.ranks.rank, process.ranks.size)
    parts = Parts(model, optim, scaler, ema, meter, device, layers, pieces, coordinate)
    computing = arithmetic.computing(prepared, device, process.precision)
    shares = Shares(train.batch_size, train.accumulate, coordinate.dp_size, coordinate.counts, coordinate.mesh.cp)
    norm = Norm(optim, train.clip_norm, pieces, process.ranks.rank, process.ranks.size)
    trained: Any = _adversary(config, task, model, fed, shares, scaler, process, closure) if train.adversarial else task
    loss = Loss(trained, computing, meter, shares, scaler, watch, clock, coordinate.mesh.is_staged)
    stepper = Stepper(strategy, prepared, loss, optim, scaler, meter, train.accumulate, norm, watch, clock, skipper, closure)
    return parts, stepper, task, arithmetic.computing(strategy.evaluated(prepared, model), device, process.precision)


def _adversary(
    config: Mapping[str, Any],
    task: Any,
    model: nn.Module,
    fed: tuple[Any, Any, Callable[[], int]],
    shares: Shares,
    scaler: torch.amp.GradScaler | None,
    process: Process,
    closure: Closure | None,
) -> Adversary:
    """Raises ConfigError where the data are no images that an attack can change, or the optimizer has a closure."""
    if closure is not None:
        raise ConfigError(
            "train.adversarial: this optimizer searches along one loss, and at each weight that it tries an attack makes another; type "
            "optim=sgd, or train.adversarial=null"
        )
    data, loader, at = fed
    device = process.accelerator.device
    pixels, place = pixels_of(data, loader, task, device), Placed(config["seed"], shares, process.coordinate.dp_rank, at)
    computing = arithmetic.computing(model, device, process.precision)
    return Adversary(task, model, computing, pixels, Asked.of(config["train"]["adversarial"]), place, scaler)


def _initial(process: Process, node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the model, without what names its initial weights where there are checkpoints: one of them is loaded, or the run ends."""
    if not pretrained.is_named(node):
        return node
    return pretrained.without(node) if process.ranks.from_first(bool(by_step(process.run.checkpoints))) else node


def _model(node: Mapping[str, Any], train: TrainConfig, blocks: Sequence[str], device: torch.device, is_nhwc: bool) -> nn.Module:
    model: Any = targets.build(node)
    if train.fp8:
        model = faster.in_8_bits(model, device)
    activations.spare(model, blocks, train.activation_checkpointing)
    if is_nhwc:
        model = model.to(memory_format=torch.channels_last)
    faster.compile_it(model, blocks, train)
    return model


def _throughput(process: Process, parts: Parts, task: Any, train: TrainConfig) -> Throughput:
    """As if all devices were this process's; of a model whose products are of two precisions there is no one peak."""
    peak = None if train.fp8 else peaks.of(process.accelerator.device, process.precision, train.deterministic)
    flops = flops_of(parts.model, parts.pieces)
    return Throughput(getattr(task, "unit", ""), flops, None if peak is None else peak * process.ranks.size)


def _watch(process: Process, train: TrainConfig) -> Watch | NoWatch:
    most = Patience.of(train.hang_seconds).watch
    if not most:
        return NoWatch()
    return Watch(process.run, process.place, process.ranks, train.hang_seconds, most, process.accelerator.device.type)


class Evaluations:
    """Which steps evaluate; the last one does."""

    def __init__(self, every: int | str, per_epoch: int, steps: int) -> None:
        """`every`: in steps; auto: an epoch; 0: at the end only."""
        self._interval, self._steps = int(per_epoch if every == "auto" else every), steps

    def __call__(self, step: int) -> bool:
        return step == self._steps or (self._interval > 0 and step % self._interval == 0)
