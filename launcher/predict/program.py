"""Runs the program of an export: torch.export's archive, without torch.export, which takes longer to import than torch and unpickles.

The archive is a zip: a graph of operators in JSON, and tensors as raw bytes. A graph may call operators of ATen (those that take numbers,
tensors and their kinds, and no name of a file) and a few functions of whole numbers. Nothing in it is unpickled, and no text evaluated.
"""

from __future__ import annotations

import io
import math
import operator
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from launcher.errors import RunError
from launcher.trust import reading

_MOST_GRAPH = 256 << 20
_MAJOR = 8
"""Of the archive's schema."""
_ATEN = re.compile(r"torch\.ops\.aten\.([a-z_][A-Za-z0-9_]*)\.([A-Za-z0-9_]+)")
_SKIPPED = ("_assert_tensor_metadata", "sym_constrain_range", "sym_constrain_range_for_size", "_assert_scalar", "_assert_async")
"""What export noted of shapes and places while it traced; the inputs are checked before."""
_ALIKE = ("approximate", "rounding_mode", "interpolation", "mode", "ord", "indexing", "padding", "reduce", "equation")
"""Arguments that may be texts: all others could name a file."""
_KINDS = ("Storage", "Stream", "Dimname", "__torch__")
"""Of arguments that no graph of a model needs."""
_OPERATORS = ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_")
_NUMBERS: Mapping[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _OPERATORS},
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "math.trunc": math.trunc,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
    "torch.sym_max": max,
    "torch.sym_min": min,
}
_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32, 8: torch.float64,
    9: torch.complex32, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}


class _Slot(NamedTuple):
    """A place in the table of values."""

    place: int


class _Call(NamedTuple):
    function: Callable[..., Any]
    arguments: list[Any]
    filled: list[tuple[int, Any]]
    """Positions of arguments that are values, or lists with some."""
    named: dict[str, Any]
    named_filled: list[tuple[str, Any]]
    outputs: Any
    """A place; a tuple of them where the operator returns several."""
    dead: list[int]
    """Places that nobody reads afterwards."""


class Program:
    """Call it with the inputs of the model; it returns what the model does: a tensor, or a tuple, list or dict of them."""

    def __init__(self, archive: bytes, weights: Mapping[str, torch.Tensor], device: torch.device) -> None:
        """`weights`: by the names of the state_dict; what is not among them the archive has. Raises RunError in one line."""
        self._device = device
        try:
            self._read(_Archive(archive), weights)
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, StopIteration, RuntimeError, zipfile.BadZipFile) as error:
            raise RunError(f"program.pt2 is no program that this launcher runs ({error}); export the run again") from error

    def __call__(self, *inputs: torch.Tensor) -> Any:
        if len(inputs) != len(self._inputs):
            raise RunError(f"program.pt2 takes {len(self._inputs)} inputs, and {len(inputs)} were given")
        values: list[Any] = self._constants.copy()
        for place, value in zip(self._inputs, inputs, strict=True):
            values[place] = value
        with torch.inference_mode():
            for function, arguments, filled, named, named_filled, outputs, dead in self._calls:
                if filled:
                    arguments = arguments.copy()
                    for position, slot in filled:
                        arguments[position] = values[slot.place] if slot.__class__ is _Slot else _value(slot, values)
                if named_filled:
                    named = named.copy()
                    for name, slot in named_filled:
                        named[name] = _value(slot, values)
                found = function(*arguments, **named)
                if outputs.__class__ is int:
                    values[outputs] = found
                else:
                    for place, each in zip(outputs, found, strict=True):
                        values[place] = each
                for place in dead:
                    values[place] = None
        return _unflattened(self._shape, iter([_value(slot, values) for slot in self._outputs]))

    def _read(self, archive: _Archive, weights: Mapping[str, torch.Tensor]) -> None:
        self._places: dict[str, int] = {}
        told = archive.json("models/model.json")
        if told["schema_version"]["major"] != _MAJOR:
            raise ValueError(f"its schema is {told['schema_version']['major']}, and {_MAJOR} is known")
        module = told["graph_module"]
        graph, signature = module["graph"], module["signature"]
        self._inputs: list[int] = []
        kept: dict[int, Any] = {}
        for spec in signature["input_specs"]:
            kind, what = _only(spec)
            if kind == "user_input":
                self._inputs.append(self._place(_only(what["arg"])[1]["name"]))
            elif kind == "constant_input":
                kept[self._place(what["name"])] = _only(what["value"])[1]
            elif kind in ("parameter", "buffer", "tensor_constant"):
                name = what[f"{kind}_name"]
                value = weights[name] if name in weights else archive.tensor(name)
                kept[self._place(what["arg"]["name"])] = value.to(self._device)
            else:
                raise ValueError(f"an input of the kind {kind!r:.40}")
        if others := {_only(spec)[0] for spec in signature["output_specs"]} - {"user_output"}:
            raise ValueError(f"it changes what it is given ({', '.join(sorted(others))})")
        calls = [call for node in graph["nodes"] if (call := self._call(node)) is not None]
        self._outputs = [self._argument(each) for each in graph["outputs"]]
        self._calls = _with_dead(calls, self._outputs, kept)
        self._constants: list[Any] = [kept.get(place) for place in range(len(self._places))]
        entry = next(each for each in module["module_call_graph"] if each["fqn"] == "")
        self._shape = reading.parsed(entry["signature"]["out_spec"])[1]
        if _leaves(self._shape) != len(self._outputs):
            raise ValueError("its outputs have another number than their shape has")

    def _place(self, name: str) -> int:
        return self._places.setdefault(name, len(self._places))

    def _call(self, node: Mapping[str, Any]) -> _Call | None:
        function = _function(node["target"])
        if function is None:
            return None
        arguments: list[Any] = []
        named: dict[str, Any] = {}
        for each in node["inputs"]:
            value = self._argument(each["arg"])
            if each.get("kind") == 2:
                named[each["name"]] = value
            else:
                arguments.append(value)
        filled = [(position, value) for position, value in enumerate(arguments) if _has_slot(value)]
        named_filled = [(name, value) for name, value in named.items() if _has_slot(value)]
        return _Call(function, arguments, filled, named, named_filled, self._targets(node["outputs"]), [])

    def _targets(self, outputs: Sequence[Any]) -> Any:
        if len(outputs) == 1:
            kind, what = _only(outputs[0])
            if kind == "as_tensors":
                return tuple(self._place(each["name"]) for each in what)
            return self._named(kind, what)
        return tuple(self._named(*_only(each)) for each in outputs)

    def _named(self, kind: str, what: Any) -> int:
        if kind == "as_none":
            return self._place("")
        return self._place(what["as_name"] if kind.startswith("as_sym") else what["name"])

    def _argument(self, argument: Mapping[str, Any]) -> Any:
        """A value, or a slot, or a list with some."""
        kind, what = _only(argument)
        if kind == "as_none":
            return None
        if kind in ("as_int", "as_bool", "as_string"):
            return what
        if kind == "as_float":
            return float(what)
        if kind in ("as_ints", "as_bools", "as_floats"):
            return list(map(float, what)) if kind == "as_floats" else list(what)
        if kind == "as_tensor":
            return self._known(what["name"])
        if kind == "as_tensors":
            return [self._known(each["name"]) for each in what]
        if kind in ("as_optional_tensor", "as_sym_int", "as_sym_bool", "as_sym_float"):
            inner, value = _only(what)
            return self._known(value) if inner == "as_name" else self._argument(what)
        if kind in ("as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats"):
            return [self._known(_only(each)[1]) if _only(each)[0] == "as_name" else self._argument(each) for each in what]
        if kind == "as_scalar_type":
            return _DTYPES[what]
        if kind == "as_memory_format":
            return _FORMATS[what]
        if kind == "as_layout" and what == 7:
            return torch.strided
        if kind == "as_device":
            return self._device  # whatever it was made on
        raise ValueError(f"an argument of the kind {kind!r:.40}")

    def _known(self, name: str) -> _Slot:
        return _Slot(self._places[name])


class _Archive:
    """Raises ValueError, KeyError, BadZipFile."""

    def __init__(self, data: bytes) -> None:
        self._zip = zipfile.ZipFile(io.BytesIO(data))
        self._root = next(name for name in self._zip.namelist() if name.endswith("/models/model.json")).removesuffix("models/model.json")

    def json(self, name: str) -> Any:
        return reading.parsed(self._bytes(name))

    def _bytes(self, name: str) -> bytes:
        told = self._zip.getinfo(self._root + name)
        if told.compress_type != zipfile.ZIP_STORED and told.file_size > _MOST_GRAPH:
            raise ValueError(f"{name} is packed, and would be {told.file_size >> 20:,} MiB")
        return self._zip.read(told)

    def tensor(self, name: str) -> torch.Tensor:
        """A weight, or a constant."""
        for where in ("weights", "constants"):
            told = self.json(f"data/{where}/model_{where}_config.json")["config"].get(name)
            if told is None:
                continue
            if told["use_pickle"]:
                raise ValueError(f"{name} is a pickle, which is not opened")
            meta = told["tensor_meta"]
            sizes, strides = ([each["as_int"] for each in meta[key]] for key in ("sizes", "strides"))
            data = bytearray(self._bytes(f"data/{where}/{told['path_name']}"))
            dtype = _DTYPES[meta["dtype"]]
            if not data:
                return torch.empty(sizes, dtype=dtype)
            return torch.frombuffer(data, dtype=dtype).as_strided(sizes, strides, meta["storage_offset"]["as_int"]).clone()
        raise ValueError(f"there is no tensor {name!r:.80}")


def _function(target: str) -> Callable[..., Any] | None:
    """None: nothing is to be done. Raises ValueError for what no graph may call."""
    if target in _NUMBERS:
        return _NUMBERS[target]
    found = _ATEN.fullmatch(target)
    if found is None:
        raise ValueError(f"it calls {target!r:.80}, and only operators of ATen are run")
    name, overload = found.groups()
    if name in _SKIPPED:
        return None
    call = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if not isinstance(call, torch._ops.OpOverload):  # pyright: ignore[reportPrivateUsage]
        raise ValueError(f"this torch ({torch.__version__}) has no operator {target!r:.80}")
    for argument in call._schema.arguments:  # pyright: ignore[reportPrivateUsage]
        kind = str(argument.type)
        if any(word in kind for word in _KINDS) or ("str" in kind and argument.name not in _ALIKE):
            raise ValueError(f"it calls {target!r:.80}, which takes {argument.name} ({kind})")
    return call


def _with_dead(calls: list[_Call], outputs: Sequence[Any], kept: Mapping[int, Any]) -> list[_Call]:
    """Each with the places that it is the last to read."""
    alive = {*kept, *(place for each in outputs for place in _slots(each))}
    made: list[_Call] = []
    for call in reversed(calls):
        targets = call.outputs if isinstance(call.outputs, tuple) else (call.outputs,)
        read = {place for _, value in (*call.filled, *call.named_filled) for place in _slots(value)} | {*targets}
        made.append(call._replace(dead=sorted(read - alive)))
        alive |= read
    return made[::-1]


def _only(union: Mapping[str, Any]) -> tuple[str, Any]:
    ((kind, what),) = union.items()
    return kind, what


def _has_slot(value: Any) -> bool:
    return next(iter(_slots(value)), None) is not None


def _slots(value: Any) -> list[int]:
    if isinstance(value, _Slot):
        return [value.place]
    return [each.place for each in value if isinstance(each, _Slot)] if isinstance(value, list) else []


def _value(slot: Any, values: list[Any]) -> Any:
    if isinstance(slot, _Slot):
        return values[slot.place]
    return [_value(each, values) for each in slot] if isinstance(slot, list) else slot


def _leaves(shape: Mapping[str, Any]) -> int:
    return 1 if shape["type"] is None else sum(map(_leaves, shape["children_spec"]))


def _unflattened(shape: Mapping[str, Any], leaves: Any) -> Any:
    kind = shape["type"]
    if kind is None:
        return next(leaves)
    children = [_unflattened(each, leaves) for each in shape["children_spec"]]
    if kind == "builtins.dict":
        return dict(zip(reading.parsed(shape["context"]), children, strict=True))
    if kind in ("builtins.tuple", "builtins.list"):
        return tuple(children) if kind == "builtins.tuple" else children
    raise RunError(f"program.pt2 returns {kind!r:.60}, which is no tensor, tuple, list or dict")
