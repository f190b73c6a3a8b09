"""A pipeline at work: torch.distributed.pipelining for updates, one pass after the other for evaluations.

What crosses between processes is tensors, and what they look like as numbers: torch would send that as a pickle, so the shapes are found
out here, in passes before the first update, and given to its stages.
"""

# pyright: standard
from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import pipelining
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import schedules
from torch.utils import _pytree as pytree

from launcher.errors import ConfigError, LaunchError
from launcher.strategies import crossing, draws, faults
from launcher.strategies.protocol import Compute
from launcher.strategies.stages import Reached, Stage

_KEPT = 8
"""Schedules for micro-batches of other shapes; each has memory for what it receives."""
_UNEQUAL = "strategy=pp: the micro-batches of an update have to be of one shape, and so what stages give; pad them, or type strategy=fsdp"

Shapes = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""What each stage takes and gives, on the meta device."""


class _Probed(BaseException):
    """The pass that finds out shapes is done, and no loss is wanted."""


class Pipeline:
    """What a task calls in the place of a model that is cut. Every process of the pipeline makes the same calls with inputs of the same
    shapes; the outputs are real where the last stage is, and elsewhere zeros of their shape, which count for nothing."""

    def __init__(self, model: nn.Module, stages: Sequence[Stage], count: int, group: Any, device: torch.device, schedule: str) -> None:
        """`stages`: those of this process, of `count`; number s is on process s % (size of `group`). `schedule`: torch's name of one."""
        self.stages = {stage.number: stage for stage in stages}
        self._model, self._count, self._group, self._device = model, count, group, device
        self._place, self._size = dist.get_rank(group), dist.get_world_size(group)
        self._kind = schedules.get_schedule_class(schedule)
        self._schedules: dict[Any, tuple[Any, Shapes]] = {}
        """By the shapes of a micro-batch, with what stages take and give."""
        self._calls: Sequence[Callable[[], Any]] = ()
        """What a stage's `forward` does: of each micro-batch, in the order in which every schedule takes them."""
        self._turns: Counter[int] = Counter()
        """How many of them each stage has done."""
        self.twins: Sequence[tuple[torch.Tensor, int]] = ()
        """Parameters that another process of the pipeline has too, and which."""
        self.replicas: Any = None
        """The group of those that have the same stages whole."""
        self._at: Stage | None = None
        """Which is computing."""
        self._seed: int | None = None
        """Of the micro-batch that is computed, in an update; None when it is with the model."""
        self._expected: Shapes = {}
        self._seen: Shapes | None = None
        """While shapes are found out."""
        for stage in stages:
            stage.module.forward = functools.partial(self._forward, stage)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if self._at is not None:
            if self._expected:
                self._enter()
            module = self._at.module
            return type(module).forward(module, *inputs, **named)
        outputs = self._pass(*self._told((inputs, named)))
        if self._seen is not None:
            raise _Probed
        return outputs

    def _enter(self) -> None:
        """In an update the model is called. What is drawn within is this stage's own."""
        if self._at is None or self._seed is None:
            raise ConfigError(
                "strategy=pp: the task calls the model twice for one micro-batch, and a stage has one call; type strategy=fsdp"
            )
        draws.plant(self._seed + 1 + self._at.number)
        self._seed = None

    def _forward(self, stage: Stage, received: torch.Tensor) -> Any:
        """Of one stage: what it gives the next one, or of the last whatever it was called for."""
        call = self._calls[self._turns[stage.number]]
        self._turns[stage.number] += 1
        stage.follow()
        stage.mail.open(received if stage.number else None)
        self._at = stage
        try:
            result = call()
            stage.mail.close()
            return result
        except Reached as end:
            return self._checked(stage.number, end.activation).contiguous()
        finally:
            self._at = None
            stage.mail.shut()

    def update(self, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        """The gradients of one update on this process. Raises ConfigError where micro-batches are of unequal shapes."""
        batches = [next(micro_batches) for _ in range(count)]
        looks = [_look(batch) for batch in batches]
        if len(set(looks)) > 1:
            raise ConfigError(_UNEQUAL)
        if looks[0] not in self._schedules:
            if len(self._schedules) >= _KEPT:
                self._schedules.clear()
            self._schedules[looks[0]] = self._schedule(count, functools.partial(compute.forward, batches[0]))
        schedule, self._expected = self._schedules[looks[0]]
        seeds = torch.randint(2**62, (count,)).tolist()  # the same in all stages, whatever order they go in
        pairs = zip(batches, seeds, strict=True)
        self._calls, self._turns = [functools.partial(self._compute, compute, batch, seed) for batch, seed in pairs], Counter()
        numbers = torch.arange(count)
        with draws.kept(self._device), _in_one_line():
            schedule.step(*((numbers,) if 0 in self.stages else ()), target=numbers, return_outputs=False)
        self._calls, self._expected = (), {}
        for parameter, place in self.twins:
            self._add_tied(parameter, place)
        if self.replicas is not None:
            crossing.average(list(self._model.parameters()), self.replicas)

    def _compute(self, compute: Compute, batch: Any, seed: int) -> Any:
        """What a task draws is the same in all stages."""
        draws.plant(seed)
        self._seed = seed
        return compute.forward(batch)

    def _checked(self, number: int, activation: torch.Tensor) -> torch.Tensor:
        """As torch has memory for it. Raises ConfigError."""
        expected = self._expected.get(number)
        if expected is not None and (activation.shape, activation.dtype) != (expected[1].shape, expected[1].dtype):
            raise ConfigError(_UNEQUAL)
        return activation

    def _schedule(self, count: int, compute: Callable[[], Any]) -> tuple[Any, Shapes]:
        seen = self._probe(compute)
        stages = [
            pipelining.PipelineStage(stage.module, number, self._count, self._device, *seen[number], group=self._group)
            for number, stage in self.stages.items()
        ]
        single = issubclass(self._kind, schedules.PipelineScheduleSingle)
        return self._kind(stages[0] if single else stages, count, loss_fn=lambda loss, target: loss, scale_grads=False), seen

    def _probe(self, compute: Callable[[], Any]) -> Shapes:
        """Two passes without gradients that change nothing, as the model evaluates and as it trains, for it may go other ways then. Raises
        ConfigError where the model cannot be run in stages."""
        trains, seen = any(each.requires_grad for each in self._model.parameters()), {}
        for mode in (_evaluating, _unchanged):
            self._seen = {}
            with torch.no_grad(), draws.kept(self._device), mode(self._model):
                try:
                    compute()
                except _Probed:
                    pass
                except Exception as error:  # whatever a stranger's model meets in the place of its modules
                    if isinstance(error, LaunchError) or faults.is_of_machine(error):
                        raise
                    why = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
                    raise ConfigError(
                        f"strategy=pp: the model cannot be run in stages, if it can at all ({why}); type strategy=fsdp"
                    ) from error
                finally:
                    seen, self._seen = self._seen, None
        return {
            number: (takes.requires_grad_(trains and number > 0), gives.requires_grad_(trains)) for number, (takes, gives) in seen.items()
        }

    def _pass(self, inputs: Any, named: Any) -> Any:
        """One batch through all stages."""
        activation: Any = None
        for number in range(self._count):
            stage, before, after = self.stages.get(number), (number - 1) % self._size, (number + 1) % self._size
            if stage is None:
                continue
            if number and before != self._place:
                activation = crossing.receive(dist.get_global_rank(self._group, before), self._group, self._device)
            given = activation
            self._calls, self._turns = [functools.partial(self, *inputs, **named)], Counter()
            version = 0 if given is None else given._version
            activation = stage.module(given)
            if number + 1 < self._count and after != self._place:
                crossing.send(activation, dist.get_global_rank(self._group, after), self._group, self._device)
            if self._seen is not None:
                stage.mail.copies |= given is not None and given._version > version
                _check_chain(stage, given, activation)
                self._seen[number] = self._looks(number, given, activation)
        self._calls = ()
        return self._outputs(activation)

    def _looks(self, number: int, given: torch.Tensor | None, gives: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """In an update the first stage takes the number of a micro-batch, for torch wants something, and the last gives a loss."""
        takes = torch.empty(1, dtype=torch.int64, device="meta") if given is None else torch.empty_like(given, device="meta")
        is_last = number + 1 == self._count
        return takes, torch.empty((), device="meta") if is_last else torch.empty_like(gives, device="meta")

    def _told(self, inputs: Any) -> Any:
        """As the last stage has them: of what it draws from outputs, as the next token of a text, the others know nothing."""
        leaves, spec = pytree.tree_flatten(inputs)
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                leaves[place] = leaf.contiguous() if self._has_last else torch.empty_like(leaf, memory_format=torch.contiguous_format)
                dist.broadcast(leaves[place], self._last, group=self._group)
        return pytree.tree_unflatten(leaves, spec)

    def _outputs(self, outputs: Any) -> Any:
        """Those of the last stage; elsewhere zeros in their place."""
        text = json.dumps(crossing.described(outputs)).encode() if self._has_last else b""
        length = torch.tensor([len(text)], device=self._device)
        dist.broadcast(length, self._last, group=self._group)
        told = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(int(length), dtype=torch.uint8)
        told = told.to(self._device)
        dist.broadcast(told, self._last, group=self._group)
        return outputs if self._has_last else crossing.zeros(json.loads(bytes(told.tolist())), self._device)

    @property
    def _has_last(self) -> bool:
        return self._count - 1 in self.stages

    @property
    def _last(self) -> int:
        """The rank with the last stage."""
        return dist.get_global_rank(self._group, (self._count - 1) % self._size)

    def release(self) -> None:
        """What FSDP has gathered."""
        for module in (module for stage in self.stages.values() for module in stage.module.modules()):
            if isinstance(module, FSDPModule):
                module.reshard()

    def _add_tied(self, parameter: torch.Tensor, place: int) -> None:
        """The gradient that another process of the pipeline has of the same parameter: both come to the same sum."""
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradient: Any = getattr(parameter.grad, "_local_tensor", parameter.grad)
        theirs, peer = torch.empty_like(gradient), dist.get_global_rank(self._group, place)
        both = [dist.P2POp(dist.isend, gradient, peer, self._group), dist.P2POp(dist.irecv, theirs, peer, self._group)]
        for work in dist.batch_isend_irecv(both):
            work.wait()
        gradient += theirs


@contextmanager
def _in_one_line() -> Generator[None]:
    """torch's stages put what fails in them into an error of their own."""
    try:
        yield
    except RuntimeError as error:
        cause = error.__cause__
        while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        raise (cause if cause is not None else error) from None


def _check_chain(stage: Stage, given: Any, gives: Any) -> None:
    """Raises ConfigError where what earlier modules gave, for which NaN stands, has come into what a stage gives. Numbers that have gone
    bad are nothing that a config says: they are for the guard."""
    floating = [leaf for leaf in pytree.tree_leaves(gives) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    if not stage.number or not any(leaf.isnan().any() for leaf in floating):
        return
    numbers = (given, *(getattr(each, "_local_tensor", each) for each in stage.module.parameters()))
    if all(each.isfinite().all() for each in numbers) and not any(each.isnan().any() for each in stage.module.buffers()):
        raise ConfigError(
            "strategy=pp: forward does more with what a module of STAGES gives than to pass it on to the next (adds it, or takes it again "
            "later), and a later stage has only what the last one gave; put that into the modules, or type strategy=fsdp"
        )


def _look(batch: Any) -> tuple[Any, ...]:
    """The shapes and types of its tensors."""
    return tuple((leaf.shape, leaf.dtype) for leaf in pytree.tree_leaves(batch) if isinstance(leaf, torch.Tensor))


@contextmanager
def _evaluating(model: nn.Module) -> Generator[None]:
    """By the flags alone."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _unchanged(model: nn.Module) -> Generator[None]:
    """Buffers, as the statistics of a BatchNorm, are after this as they were before."""
    own = [(module._buffers, name, buffer) for module in model.modules() for name, buffer in module._buffers.items() if buffer is not None]
    values = [buffer.clone() for _, _, buffer in own]
    try:
        yield
    finally:
        for (buffers, name, buffer), value in zip(own, values, strict=True):
            buffers[name] = buffer.copy_(value)
