"""A trial, before the first update, of what cannot be told by looking: whether a model and a loss are in parts what they are of the whole.

A few tokens of the first micro-batch go through as sequences that each process has whole, and once more in parts. A convolution over time
and a mean over the sequence give other outputs, and of the same outputs a loss that pairs each token with the next, or counts samples and
adds up tokens, is another.
"""

# pyright: standard
from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils import _pytree as pytree

from launcher.errors import ConfigError
from launcher.strategies import draws, faults
from launcher.strategies.context import Sequences, tensors
from launcher.strategies.protocol import Compute

_CHUNK = 4
"""Tokens in each of the 2n chunks: a few, so that one wrong neighbour counts for much."""
_NEAR, _ROUGHLY = 1e-3, 0.1
"""How far outputs may be from each other, relative; the other one where weights are in bf16 or fp16: 16 layers of bf16 differ by 0.015."""
_SAME = 1e-5
"""The same of losses of the same outputs."""


def hold(sequences: Sequences, model: nn.Module, batch: Any, compute: Compute) -> None:
    """Every process calls it, those of a group with the same micro-batch. Raises ConfigError where parts are not as the whole. What is
    drawn at random is not judged: no two are alike."""
    device = next(model.parameters()).device
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), draws.kept(device), _as_trained(model):
        given, call = _first_of(model, compute, sequences.few(batch, _CHUNK), batch)
        if call is None:
            return
        length = sequences.length_of(given)
        outputs = _judge_model(sequences, call, length, device)
        with _giving(model, outputs):
            whole, again = _measured(compute, given), _measured(compute, given)
        with sequences.in_parts():
            part = sequences.part(given)
            with _giving(model, sequences.own(outputs)):
                parts = _measured(compute, part)
    _judge_loss(_added([*whole, *again, *parts], sequences, device), sequences.size)


def _judge_model(sequences: Sequences, call: Callable[[], Any], length: int, device: torch.device) -> Any:
    """Its outputs of the whole. Raises ConfigError."""
    outputs, again = call(), call()
    try:
        with sequences.in_parts(length, gathers=True):
            parts = call()
    except Exception as error:  # whatever a stranger's model meets in parts
        if isinstance(error, ConfigError) or faults.is_of_machine(error):
            raise
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"strategy=cp: the model cannot compute on a part of a sequence ({line}); name every argument of a block that goes along it in "
            "CONTEXT_PARALLEL in its file, or type strategy=fsdp"
        ) from error
    drawn, far = _added([_distance(outputs, again), _distance(outputs, parts)], sequences, device)
    near = _NEAR if sequences.is_precise else _ROUGHLY
    if drawn <= near and not far <= near * sequences.size:
        raise ConfigError(
            f"strategy=cp: of a few tokens the model's outputs are in parts others than of the whole (by {far / sequences.size:.1e}): "
            "something takes from other tokens than by torch's attention, or knows its place in the sequence; type strategy=fsdp"
        )
    return outputs


def _judge_loss(found: list[float], size: int) -> None:
    """Raises ConfigError. `found`: loss and weight of the whole, once more, and of the parts, each added up over `size` processes."""
    loss, weight, others, other, ours, our = found
    if not weight or not math.isfinite(loss) or weight != other or _are_far(loss, others):
        return
    weights = (weight / size, weight)  # of tokens, or of the samples that every part has
    of_parts = ours / our if our else math.nan
    if _are_far(loss / weight, of_parts) or all(_are_far(our, each) for each in weights):
        raise ConfigError(
            f"strategy=cp: of a few tokens the loss is {loss / weight:.5g} over a weight of {weights[0]:g}, and of their {size} parts "
            f"{of_parts:.5g} over {our:g}, for it is not one of each token by itself; type strategy=fsdp"
        )


def _are_far(one: float, other: float) -> bool:
    """No number is far from all."""
    return not abs(one - other) <= _SAME * max(abs(one), abs(other))


def _distance(one: Any, other: Any) -> float:
    """The largest of any tensor, relative."""
    pairs = [(a.double(), b.double()) for a, b in zip(tensors(one), tensors(other), strict=True) if a.is_floating_point()]
    return max((((a - b).norm() / a.norm().clamp_min(1e-12)).item() for a, b in pairs), default=0.0)


def _added(numbers: list[float], sequences: Sequences, device: torch.device) -> list[float]:
    """Over the processes, so that all judge alike."""
    found = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(found, group=sequences.group)
    return found.tolist()


def _measured(compute: Compute, batch: Any) -> tuple[float, float]:
    loss, weight = compute.measured(batch)
    return float(loss), float(weight)


def _first_of(model: nn.Module, compute: Compute, *batches: Any) -> tuple[Any, Callable[[], Any] | None]:
    """The first that the model takes, for it may be one of a single length, and the call that a task makes of it. What it says of none, the
    update that follows will say."""
    calls: list[Callable[[], Any]] = []
    for batch in batches:
        handle = model.register_forward_pre_hook(lambda _, args, named: calls.append(lambda: model(*args, **named)), with_kwargs=True)
        try:
            compute.measured(batch)
        except Exception as error:  # or a task with few tokens
            if faults.is_of_machine(error):
                raise
            calls.clear()
        finally:
            handle.remove()
        if calls:
            return batch, calls[0]
    return None, None


@contextmanager
def _giving(model: nn.Module, outputs: Any) -> Generator[None]:
    """Whatever the model computes."""
    handle = model.register_forward_hook(lambda *_: pytree.tree_map(lambda leaf: leaf, outputs))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _as_trained(model: nn.Module) -> Generator[None]:
    """Nothing is dropped, and weights are others: those that begin at zero would hide what comes before them. After it all is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    pieces = [getattr(each, "_local_tensor", each) for each in (*model.parameters(), *model.buffers())]
    kept = [piece.clone() for piece in pieces]
    model.eval()
    for parameter in model.parameters():
        piece: torch.Tensor = getattr(parameter, "_local_tensor", parameter)
        if parameter.is_floating_point():
            piece.add_(torch.randn_like(piece), alpha=1 / math.sqrt(parameter.shape[1:].numel()) if parameter.ndim > 1 else 0.1)
    try:
        yield
    finally:
        for piece, before in zip(pieces, kept, strict=True):
            piece.copy_(before)
        for module, mode in modes:
            module.training = mode
