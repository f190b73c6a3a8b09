"""State of any nesting as two things that files hold: tensors by name, and JSON that says where each of them was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch

from launcher.errors import CheckpointError

TENSOR, _TUPLE, _MAPPING = "tensor", "tuple", "mapping"
"""An object of the JSON has one of these keys. A list is a list, and what JSON knows is itself: floats come back to the last bit."""


def unfold(name: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON for `value`. Its tensors go into `tensors`, below `name`: `name/3/key`. Raises CheckpointError for what neither can hold."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {TENSOR: name}
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return {_MAPPING: [[unfold(name, key, tensors), unfold(f"{name}/{key}", each, tensors)] for key, each in pairs]}
    if isinstance(value, list | tuple):
        items = [unfold(f"{name}/{place}", each, tensors) for place, each in enumerate(cast("list[Any]", value))]
        return items if isinstance(value, list) else {_TUPLE: items}
    raise CheckpointError(
        f"the state {name} is a {type(value).__name__}, which a checkpoint cannot hold; it holds tensors, numbers, texts, "
        "and lists, tuples and dicts of them"
    )


def fold(value: Any, take: Callable[[str], torch.Tensor]) -> Any:
    """What `unfold` was given; `take` gives the tensor of a name. Raises ValueError for what `unfold` does not write."""
    if isinstance(value, list):
        return [fold(each, take) for each in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = cast("dict[str, Any]", value).items()
    if kind == TENSOR:
        return take(inside)
    if kind == _TUPLE:
        return tuple(fold(each, take) for each in inside)
    if kind == _MAPPING:
        return {fold(key, take): fold(each, take) for key, each in inside}
    raise ValueError(f"{kind} is no kind of state")


def names_in(value: Any) -> list[str]:
    """Of the tensors in what `unfold` gave."""
    names: list[str] = []
    fold(value, lambda name: (names.append(name), torch.empty(0))[1])
    return names


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """In an order that is the same wherever the value is; what is no tensor is passed over."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value)
        for key in sorted(pairs, key=str):
            yield from tensors_in(pairs[key])
    elif isinstance(value, list | tuple):
        for each in cast("list[Any]", value):
            yield from tensors_in(each)
