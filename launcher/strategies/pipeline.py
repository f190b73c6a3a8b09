"""A pipeline at work: torch.distributed.pipelining for updates, one pass after the other for evaluations.

What crosses between processes is tensors, and what they look like as numbers: torch would send that as a pickle, so the shapes are found
out here, in one pass before the first update, and given to its stages.
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

from launcher.errors import ConfigError
from launcher.plan import Compute
from launcher.strategies.stages import Reached, Stage

_HEADER = 16
"""Numbers that say what a tensor looks like: its type, how many dimensions, and each."""
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
_KEPT = 8
"""Schedules for micro-batches of other shapes; each has memory for what it receives."""
_BUCKET = 25 << 20
"""Bytes of gradients that are averaged together, as DDP has it."""


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
        self._schedules: dict[Any, Any] = {}
        """By the shapes of a micro-batch."""
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
        self._seen: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = None
        """While shapes are found out: what each stage takes and gives, on the meta device."""
        for stage in stages:
            stage.module.forward = functools.partial(self._forward, stage)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if self._at is not None:
            module = self._at.module
            return type(module).forward(module, *inputs, **named)
        outputs = self._pass(*self._told((inputs, named)))
        if self._seen is not None:
            raise _Probed
        return outputs

    def _forward(self, stage: Stage, received: torch.Tensor) -> Any:
        """Of one stage: what it gives the next one, or of the last whatever it was called for."""
        call = self._calls[self._turns[stage.number]]
        self._turns[stage.number] += 1
        stage.follow()
        stage.mail.received = received if stage.number else None
        self._at = stage
        try:
            return call()
        except Reached as end:
            return end.activation.contiguous()
        finally:
            self._at = stage.mail.received = None

    def update(self, micro_batches: Iterator[Any], count: int, compute: Compute) -> None:
        """The gradients of one update on this process. Raises ConfigError where micro-batches are of unequal shapes."""
        batches = [next(micro_batches) for _ in range(count)]
        looks = [_look(batch) for batch in batches]
        if len(set(looks)) > 1:
            raise ConfigError("strategy=pp: the micro-batches of an update have to be of one shape, and these are not; type strategy=fsdp")
        if looks[0] not in self._schedules:
            if len(self._schedules) >= _KEPT:
                self._schedules.clear()
            self._schedules[looks[0]] = self._schedule(count, functools.partial(compute.forward, batches[0]))
        self._calls, self._turns = [functools.partial(compute.forward, batch) for batch in batches], Counter()
        numbers = torch.arange(count)
        self._schedules[looks[0]].step(*((numbers,) if 0 in self.stages else ()), target=numbers, return_outputs=False)
        self._calls = ()
        for parameter, place in self.twins:
            self._add_tied(parameter, place)
        if self.replicas is not None:
            average(list(self._model.parameters()), self.replicas)

    def _schedule(self, count: int, compute: Callable[[], Any]) -> Any:
        seen = self._probe(compute)
        stages = [
            pipelining.PipelineStage(stage.module, number, self._count, self._device, *seen[number], group=self._group)
            for number, stage in self.stages.items()
        ]
        single = issubclass(self._kind, schedules.PipelineScheduleSingle)
        return self._kind(stages[0] if single else stages, count, loss_fn=lambda loss, target: loss, scale_grads=False)

    def _probe(self, compute: Callable[[], Any]) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """One pass without gradients that changes nothing."""
        trains = any(each.requires_grad for each in self._model.parameters())
        self._seen = {}
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices), _evaluating(self._model):
            try:
                compute()
            except _Probed:
                pass
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
                activation = self._receive(before)
            given = activation
            self._calls, self._turns = [functools.partial(self, *inputs, **named)], Counter()
            activation = stage.module(given)
            if number + 1 < self._count and after != self._place:
                self._send(activation, after)
            if self._seen is not None:
                self._seen[number] = self._looks(number, given, activation)
        self._calls = ()
        return self._outputs(activation)

    def _looks(self, number: int, given: torch.Tensor | None, gives: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """In an update the first stage takes the number of a micro-batch, for torch wants something, and the last gives a loss."""
        takes = torch.empty(1, dtype=torch.int64, device="meta") if given is None else torch.empty_like(given, device="meta")
        is_last = number + 1 == self._count
        return takes, torch.empty((), device="meta") if is_last else torch.empty_like(gives, device="meta")

    def _send(self, tensor: torch.Tensor, place: int) -> None:
        header = torch.zeros(_HEADER, dtype=torch.int64)
        header[: 2 + tensor.ndim] = torch.tensor([_DTYPES.index(tensor.dtype), tensor.ndim, *tensor.shape])
        to = dist.get_global_rank(self._group, place)
        dist.send(header.to(self._device), to, group=self._group)
        dist.send(tensor, to, group=self._group)

    def _receive(self, place: int) -> torch.Tensor:
        header, source = torch.zeros(_HEADER, dtype=torch.int64, device=self._device), dist.get_global_rank(self._group, place)
        dist.recv(header, source, group=self._group)
        dtype, ndim, *sizes = header.tolist()
        tensor = torch.empty(sizes[:ndim], dtype=_DTYPES[dtype], device=self._device)
        dist.recv(tensor, source, group=self._group)
        return tensor

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
        text = json.dumps(_described(outputs)).encode() if self._has_last else b""
        length = torch.tensor([len(text)], device=self._device)
        dist.broadcast(length, self._last, group=self._group)
        told = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(int(length), dtype=torch.uint8)
        told = told.to(self._device)
        dist.broadcast(told, self._last, group=self._group)
        return outputs if self._has_last else _zeros(json.loads(bytes(told.tolist())), self._device)

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
        gradient: Any = getattr(parameter.grad, "_local_tensor", parameter.grad)
        theirs, peer = torch.empty_like(gradient), dist.get_global_rank(self._group, place)
        both = [dist.P2POp(dist.isend, gradient, peer, self._group), dist.P2POp(dist.irecv, theirs, peer, self._group)]
        for work in dist.batch_isend_irecv(both):
            work.wait()
        gradient += theirs


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


def average(parameters: Sequence[torch.Tensor], group: Any) -> None:
    """Of their gradients over the processes of the group, in buckets."""
    bucket: list[torch.Tensor] = []
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for number, gradient in enumerate(gradients, 1):
        bucket.append(gradient)
        if number == len(gradients) or sum(each.nbytes for each in bucket) >= _BUCKET or gradients[number].dtype != gradient.dtype:
            flat = torch.cat([each.flatten() for each in bucket])
            dist.all_reduce(flat, group=group)
            flat /= dist.get_world_size(group)
            for each, mean in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
                each.copy_(mean.view_as(each))
            bucket.clear()


def _described(outputs: Any) -> Any:
    """Of tensors in tuples, lists and dicts, for JSON. Raises ConfigError for anything else."""
    if isinstance(outputs, torch.Tensor):
        return {"tensor": list(outputs.shape), "dtype": _DTYPES.index(outputs.dtype)}
    if isinstance(outputs, dict):
        return {"dict": [[key, _described(value)] for key, value in outputs.items()]}
    if isinstance(outputs, list | tuple):
        return {type(outputs).__name__: [_described(value) for value in outputs]}
    raise ConfigError(f"strategy=pp: the model gives a {type(outputs).__name__}; it has to give tensors, or tuples, lists or dicts of them")


def _zeros(told: Any, device: torch.device) -> Any:
    if "tensor" in told:
        return torch.zeros((), dtype=_DTYPES[told["dtype"]], device=device).expand(told["tensor"])
    if "dict" in told:
        return {key: _zeros(value, device) for key, value in told["dict"]}
    ((kind, values),) = told.items()
    return [_zeros(value, device) for value in values] if kind == "list" else tuple(_zeros(value, device) for value in values)
