"""A model that is described first and filled later, a part at a time: no process ever holds the whole of it.

The factory runs as it is, but what is large it makes on the meta device, where a tensor is a shape; what makes or changes one is written
down, with the state of the generator where it draws. `fill` does that again, for the parts that are asked for, on the host: the weights are
those that the factory would have made, to the bit. (The idea is torchdistX's, https://github.com/pytorch/torchdistx.)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

LARGE = 4096
"""Elements. What has fewer is made at once: constructors read some of it back."""


class _Operation(NamedTuple):
    number: int
    function: Any
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    generator: torch.Tensor | None
    """Its state before, where the operation draws."""


class _Written:
    """A storage on the meta device: which of an operation's results made it, and what was done to it, that operation first."""

    def __init__(self, tensor: torch.Tensor, place: int) -> None:
        self.tensor = tensor  # keeps the storage, so that no other gets its name
        self.place = place
        self.operations: list[_Operation] = []


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._written: dict[int, _Written] = {}
        self._count = 0
        self.parameters: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()
        """By the `id` of those on the meta device: tied ones stay one. Whoever keeps a piece alone lets go of the whole."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        named, described = kwargs or {}, None
        if any(map(self._is_written, pytree.tree_leaves((args, kwargs)))):
            with contextlib.suppress(NotImplementedError, RuntimeError):  # more than a shape can tell
                described = func(*args, **_on("meta", named))
        elif any(argument.name == "device" for argument in func._schema.arguments):
            described = func(*args, **{**named, "device": "meta"})
            described = described if isinstance(described, torch.Tensor) and described.numel() > LARGE else None
        if not _tensors(described):
            return func(*self._now(args), **self._now(_on("cpu", named)))
        self._write(func, args, named, _tensors(described))
        return described

    def _write(self, func: Any, args: tuple[Any, ...], named: dict[str, Any], results: list[torch.Tensor]) -> None:
        pairs = zip(func._schema.arguments, args, strict=False)
        changed = [value for argument, value in pairs if argument.is_write] + ([named["out"]] if "out" in named else [])
        state = None
        if torch.Tag.nondeterministic_seeded in func.tags:  # what comes after draws from where this leaves the generator
            state = torch.get_rng_state()
            drawn = (_like(value) if any(value is each for each in changed) else self._now(value) for value in args)
            func(*drawn, **_on("cpu", named))
        given, named = pytree.tree_map(self._as_it_is, (args, _on("cpu", named)))
        operation = _Operation(self._count, func, given, named, state)
        self._count += 1
        touched = {_name(tensor) for tensor in _tensors(changed)}
        for place, tensor in enumerate(results):
            if _name(tensor) not in self._written:
                self._written[_name(tensor)] = _Written(tensor.detach(), place)
                touched.add(_name(tensor))
        for name in touched & self._written.keys():
            self._written[name].operations.append(operation)

    def _now(self, values: Any) -> Any:
        """Of any nesting, with real tensors."""
        state = torch.get_rng_state()
        values = self._real(values, self._count)
        torch.set_rng_state(state)
        return values

    def _as_it_is(self, value: Any) -> Any:
        """What stays as it is now, whatever becomes of `value`: `.data` may be given another storage, and what is real other numbers."""
        if not isinstance(value, torch.Tensor):
            return value
        return value.detach().clone() if not self._is_written(value) and value.numel() <= LARGE else value.detach()

    def _is_written(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.is_meta and _name(value) in self._written

    def real(self, tensor: torch.Tensor, before: float = math.inf) -> torch.Tensor:
        """On the host, as it was before the operation of that number."""
        name = _name(tensor)
        written, own = self._written[name], dict[int, torch.Tensor]()
        for operation in written.operations:
            if operation.number >= before:
                break
            args, named = (self._real(each, operation.number, own) for each in (operation.arguments, operation.named))
            if operation.generator is not None:
                torch.set_rng_state(operation.generator)
            results = _tensors(operation.function(*args, **named))
            if name not in own:
                own[name] = _whole_storage(results[written.place])
        return _viewed(own[name], tensor)

    def _real(self, values: Any, before: float, own: Mapping[int, torch.Tensor] = MappingProxyType({})) -> Any:
        """Of any nesting, with real tensors; `own`: storages that are being made."""

        def of(value: Any) -> Any:
            if not self._is_written(value):
                return value
            return _viewed(own[_name(value)], value) if _name(value) in own else self.real(value, before)

        return pytree.tree_map(of, values)


class _AsOnHost(TorchFunctionMode):
    """Constructors leave alone what lies on the meta device, torch's own too (torch 2.13, torch/nn/init.py): they are not told."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func == _IS_META:
            return False
        result = func(*args, **(kwargs or {}))
        return torch.device("cpu") if func == _DEVICE and result.type == "meta" else result


_IS_META, _DEVICE = torch.Tensor.is_meta.__get__, torch.Tensor.device.__get__  # pyright: ignore


def _name(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _on(device: str, named: Mapping[str, Any]) -> dict[str, Any]:
    return {**named, "device": device} if named.get("device") is not None else dict(named)


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def _whole_storage(tensor: torch.Tensor) -> torch.Tensor:
    """All of it, one dimension."""
    storage = tensor.untyped_storage()
    return tensor.new_empty(0).set_(storage, 0, (storage.nbytes() // tensor.element_size(),), (1,))


def _viewed(storage: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return storage.view(like.dtype).as_strided(like.shape, like.stride(), like.storage_offset())


_TAPES: WeakKeyDictionary[nn.Module, _Tape] = WeakKeyDictionary()


def build(factory: Callable[[], nn.Module]) -> nn.Module:
    """What `factory` makes, its large tensors on the meta device until `fill` is called."""
    with (tape := _Tape()), _AsOnHost():
        model = factory()
    _TAPES[model] = tape
    return model


def fill(model: nn.Module, parts: Sequence[nn.Module]) -> None:
    """Give those parts of `model`, which `build` made, the weights and buffers that it would have."""
    tape = _TAPES.get(model)
    if tape is None:
        return
    state = torch.get_rng_state()
    with torch.no_grad():
        for module in (module for part in parts for module in part.modules()):
            for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
                if parameter.is_meta:
                    setattr(module, name, _parameter(tape, parameter))
            for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
                if buffer.is_meta:
                    setattr(module, name, tape.real(buffer))
    torch.set_rng_state(state)
    if not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        del _TAPES[model]  # with all that was written down, mapped files too


def _parameter(tape: _Tape, on_meta: nn.Parameter) -> nn.Parameter:
    made = tape.parameters.get(id(on_meta))
    if made is None:
        made = nn.Parameter(tape.real(on_meta), on_meta.requires_grad)
        vars(made).update(vars(on_meta))
        tape.parameters[id(on_meta)] = made
    return made
