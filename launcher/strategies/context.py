"""Sequences in parts: which process has what of one, and how a model that knows nothing of it computes on a part.

A sequence of T tokens is 2n chunks; of n processes number r has chunks r and 2n-1-r, so that under a causal mask all have as much to do.
A task sees its part of a batch, and its loss is of that. The model is given whole inputs again, and each block its part of what goes along
the sequence: what comes before the blocks (positions, an embedding) is made for the whole, as it knows no other. Attention takes the
queries of the part and keys and values of all.
"""

# pyright: standard
from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right
from torch.utils import _pytree as pytree

from launcher.errors import ConfigError


class Sequences:
    """Of one model, on one process."""

    def __init__(self, group: Any) -> None:
        """`group`: the processes that have a part of each sequence."""
        self.group, self._place, self.size = group, dist.get_rank(group), dist.get_world_size(group)
        self.is_tried = False
        """Whether a model's loss was seen to be the same in parts (launcher/strategies/trial.py)."""
        self.is_precise = True
        """Whether attention was last asked for in no less than float32."""
        self._length = 0
        """Tokens of a whole sequence while a part of it is computed; 0 where a model has the whole."""
        self._masks: list[Any] = []
        """Of the queries of each own chunk, which see all keys up to their own."""
        self._gathers = False
        """Whether the model is given whole inputs, and its outputs are to be whole."""
        self._attended = 0
        """How often attention was asked for in this pass."""
        self._attention: Any = torch._dynamo.disable(functools.partial(self._attend, F.scaled_dot_product_attention))

    # what a strategy calls

    def part(self, batch: Any) -> Any:
        """This process's part of a micro-batch whose tensors are (B, T, …). Raises ConfigError for another."""
        self._begin(self.length_of(batch))
        return self.own(batch)

    def own(self, tree: Any) -> Any:
        """This process's part of what is whole, of the length that `part` was last given."""
        return pytree.tree_map(lambda leaf: self._own(leaf, 1) if isinstance(leaf, torch.Tensor) else leaf, tree)

    def few(self, batch: Any, chunk: int) -> Any:
        """The same with `chunk` tokens in each chunk, from all over the sequence; all of them where there are fewer. Raises as `part`."""
        length = self.length_of(batch)
        few = torch.linspace(0, length - 1, min(length, 2 * self.size * chunk)).long()
        return pytree.tree_map(lambda leaf: leaf[:, few.to(leaf.device)] if isinstance(leaf, torch.Tensor) else leaf, batch)

    def length_of(self, batch: Any) -> int:
        """T. Raises as `part`."""
        shapes = [tuple(each.shape) for each in tensors(batch)]
        lengths = {shape[1] if len(shape) > 1 else 0 for shape in shapes}
        if len(lengths) != 1 or 0 in lengths:
            raise ConfigError(f"strategy=cp: a batch has tensors of {shapes}, and not all are (B, T, …) with one T; type strategy=fsdp")
        (length,) = lengths
        if not self._cuts(length):
            raise ConfigError(
                f"strategy=cp: a sequence of {length} cannot be cut over {self.size} processes; pad it to a multiple of {2 * self.size}"
            )
        return length

    @contextmanager
    def in_parts(self, length: int = 0, gathers: bool = False) -> Generator[None]:
        """Attention within takes keys and values of all. `length`: 0 where `part` says it."""
        self._begin(length)
        self._gathers = gathers
        try:
            with _in_place_of_attention(self._attention), _without_fast_path():
                yield
        finally:
            self._begin(0)
            self._gathers = False

    def _begin(self, length: int) -> None:
        """Masks are made here, for within a block that makes its activations again torch makes none."""
        if length != self._length:
            self._length, chunk = length, length // (2 * self.size)
            self._masks = [causal_lower_right(chunk, chunk * (number + 1)) for number in self._chunks] if length else []

    def evaluated(self, model: nn.Module) -> Callable[..., Any]:
        """The model with inputs and outputs that are whole on each process. A sequence that cannot be cut, each computes by itself."""

        def called(*inputs: Any, **named: Any) -> Any:
            lengths = {each.shape[1] if each.ndim > 1 else 0 for each in tensors((inputs, named))}
            if len(lengths) != 1 or not self._cuts(length := lengths.pop()):
                return model(*inputs, **named)
            with self.in_parts(length, gathers=True):
                return model(*inputs, **named)

        return called

    # hooks of the model

    def take(self, model: nn.Module, inputs: Any, named: Any) -> Any:
        """What it is called with, as whole sequences."""
        self._attended = 0
        if not self._length or self._gathers:
            return None
        return pytree.tree_map(lambda leaf: self._whole(leaf, 1) if self._is_part(leaf, 1) else leaf, (inputs, named))

    def give(self, model: nn.Module, inputs: Any, outputs: Any) -> Any:
        """Raises ConfigError where what it gives is no sequence, or its attention was not ours."""
        if not self._length:
            return None
        if not self._attended:
            raise ConfigError(
                "strategy=cp: the model's attention is not torch.nn.functional.scaled_dot_product_attention, called by that name, and "
                "would see one part of a sequence; type strategy=fsdp"
            )
        for each in tensors(outputs):
            if not self._is_part(each, 1):
                raise ConfigError(
                    f"strategy=cp: the model gives a tensor of {tuple(each.shape)}, and no process has more than "
                    f"{self._length // self.size} of the {self._length} tokens; type strategy=fsdp"
                )
        return (
            pytree.tree_map(lambda leaf: self._whole(leaf, 1) if isinstance(leaf, torch.Tensor) else leaf, outputs)
            if self._gathers
            else None
        )

    def enter(self, along: Mapping[str, int], names: Sequence[str], block: nn.Module, inputs: Any, named: Any) -> Any:
        """What a block is called with, in parts where it is whole. `names`: of its arguments, in their order."""
        if not self._length:
            return None
        given = tuple(self._entered(value, along.get(name)) for name, value in zip(names, inputs, strict=False))
        return (*given, *inputs[len(given) :]), {name: self._entered(value, along.get(name)) for name, value in named.items()}

    def _entered(self, value: Any, dimension: int | None) -> Any:
        """A pair of tables, sine and cosine, goes along as one does."""
        if dimension is None:
            return value
        return pytree.tree_map(lambda leaf: self._own(leaf, dimension) if self._is_whole(leaf, dimension) else leaf, value)

    def _is_whole(self, leaf: Any, dimension: int) -> bool:
        return isinstance(leaf, torch.Tensor) and dimension < leaf.ndim and leaf.shape[dimension] == self._length

    # attention

    def _attend(
        self,
        attention: Callable[..., torch.Tensor],
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> torch.Tensor:
        """In the place of torch's, with its arguments: queries (…, T/n, D) are this process's, and so are keys and values. What is no part
        of a sequence is left alone."""
        if not self._is_part(query, -2):
            return attention(query, key, value, attn_mask, dropout_p, is_causal, **more)
        self._attended += 1
        self.is_precise = query.dtype in (torch.float32, torch.float64)
        if self._is_part(key, -2):
            key, value = self._whole(key, -2), self._whole(value, -2)
        if not is_causal:
            return attention(query, key, value, self._rows(attn_mask), dropout_p, **more)
        chunk, found = query.shape[-2] // 2, list[torch.Tensor]()
        with _in_place_of_attention(attention):  # torch knows its own masks in its own function alone
            for queries, number, mask in zip(query.split(chunk, -2), self._chunks, self._masks, strict=True):
                behind = chunk * (number + 1)
                found.append(attention(queries, key[..., :behind, :], value[..., :behind, :], mask, dropout_p, **more))
        return torch.cat(found, -2)

    def _rows(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Of a mask (…, T, T) those of this process's queries; one with a row for all is for these too."""
        return mask if mask is None or mask.shape[-2] != self._length else self._own(mask, mask.ndim - 2)

    # parts and wholes

    @property
    def _chunks(self) -> tuple[int, int]:
        return self._place, 2 * self.size - 1 - self._place

    def _cuts(self, length: int) -> bool:
        return length > 0 and length % (2 * self.size) == 0

    def _is_part(self, leaf: Any, dimension: int) -> bool:
        if not isinstance(leaf, torch.Tensor) or not self._length:
            return False
        return leaf.ndim > 1 and leaf.shape[dimension] == self._length // self.size

    def _own(self, whole: torch.Tensor, dimension: int) -> torch.Tensor:
        size = self._length // (2 * self.size)
        return torch.cat([whole.narrow(dimension, number * size, size) for number in self._chunks], dimension)

    def _whole(self, part: torch.Tensor, dimension: int) -> torch.Tensor:
        gathered: Any = _Gathered.apply(part, self.group)
        halves = gathered.chunk(2, dimension if dimension < 0 else dimension + 1)
        return torch.cat([*halves[0].unbind(), *halves[1].unbind()[::-1]], dimension)


class _Gathered(torch.autograd.Function):
    """Parts of all processes, (n, …) of (…); what comes back of each is the sum of what all have for it."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, group: Any) -> torch.Tensor:
        ctx.group = group
        whole = part.new_empty((dist.get_world_size(group), *part.shape))
        dist.all_gather_into_tensor(whole.flatten(0, 1), part.contiguous(), group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (whole,) = gradients
        part = whole.new_empty(whole.shape[1:])
        dist.reduce_scatter_tensor(part, whole.contiguous().flatten(0, 1), group=ctx.group)
        return part, None


CUT: WeakKeyDictionary[nn.Module, Sequences] = WeakKeyDictionary()
"""By the model whose sequences are cut."""


def cut(model: nn.Module, blocks: Sequence[nn.Module], along: Mapping[str, int], group: Any) -> None:
    """Have the model compute on parts of sequences. Raises ConfigError where a block has no argument of a name in `along`."""
    made = CUT[model] = Sequences(group)
    model.register_forward_pre_hook(made.take, with_kwargs=True)
    model.register_forward_hook(made.give)
    for block in blocks:
        names = list(inspect.signature(type(block).forward).parameters)[1:]  # its own: what makes activations again takes any
        if strange := [name for name in along if name not in names]:
            raise ConfigError(
                f"model: CONTEXT_PARALLEL in its file has {strange[0]!r}, and a {type(block).__name__} takes {', '.join(names)}; write one "
                "of those"
            )
        block.register_forward_pre_hook(functools.partial(made.enter, along, names), with_kwargs=True)


@contextmanager
def _in_place_of_attention(called: Callable[..., torch.Tensor]) -> Generator[None]:
    before = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = called
    try:
        yield
    finally:
        F.scaled_dot_product_attention = before


@contextmanager
def _without_fast_path() -> Generator[None]:
    """torch's own layers evaluate by kernels that ask nobody for attention."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
