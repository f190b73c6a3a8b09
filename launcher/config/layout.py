"""What a model's file says of the model, read from its source as its signature is (targets.py): literals at the top. How it can be split:

- `BLOCKS = ("Block",)`: names of the classes of which the model is a stack;
- `TENSOR_PARALLEL = {"blocks.*.q": "column"}`: how each module is cut over processes (launcher/strategies/tp.py);
- `STAGES = ("embed", "blocks.*", "head")`: the modules that are called one after the other, which a pipeline is cut between
  (launcher/strategies/stages.py);
- `CONTEXT_PARALLEL = {"x": 1}`: the arguments of a block that go along the sequence, and in which dimension (launcher/strategies/cp.py).

And `PRETRAINED = ("weights",)`, the keywords that name what the initial weights are taken from (pretrained.py), and
`TAKES = ("images",)`, for what nothing else can be given to (compose/check.py).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from launcher.config import targets, tree
from launcher.errors import ConfigError
from launcher.strategies.protocol import Layout

Value = TypeVar("Value", int, str)


def of(model: Mapping[str, Any]) -> Layout:
    """Of the files of all targets in that node. Raises ConfigError where one says it in another form."""
    blocks: dict[str, None] = {}
    stages: dict[str, None] = {}
    table: dict[str, str] = {}
    along: dict[str, int] = {}
    for _, node in tree.walk({"model": model}):
        if tree.is_mapping(node) and isinstance(target := node.get("_target_"), str):
            module = target.rpartition(".")[0]
            blocks |= dict.fromkeys(names(module, "BLOCKS", "Block"))
            stages |= dict.fromkeys(names(module, "STAGES", "blocks.*"))
            table |= _table(module, "TENSOR_PARALLEL", "blocks.*.q", "column")
            along |= _table(module, "CONTEXT_PARALLEL", "x", 1)
    return Layout(tuple(blocks), table, tuple(stages), along)


def _table(module: str, key: str, name: str, example: Value) -> dict[str, Value]:
    """The dict of that name at the top of a module, texts to what is of `example`'s type; empty where it has none. Raises ConfigError for
    anything else."""
    value, kind = _literal(module, key, {}), type(example)
    if not isinstance(value, dict) or not all(isinstance(name, str) and type(each) is kind for name, each in value.items()):  # pyright: ignore
        words = {str: "texts", int: "whole numbers"}[kind]
        raise ConfigError(f'{module}.{key} is no table of {words}; write {key} = {{"{name}": {json.dumps(example)}}} there')
    return value  # pyright: ignore[reportUnknownVariableType]


def names(module: str, key: str, example: str) -> tuple[str, ...]:
    """The tuple of texts of that name at the top of a module; empty where it has none. Raises ConfigError for anything else."""
    value = _literal(module, key, ())
    if not isinstance(value, tuple) or not all(isinstance(name, str) for name in value):  # pyright: ignore
        raise ConfigError(f'{module}.{key}={value!r} is no tuple of names; write {key} = ("{example}",) there')
    return value  # pyright: ignore[reportUnknownVariableType]


def _literal(module: str, name: str, missing: Any) -> Any:
    """What a module gives that name at its top."""
    found = targets.module_tree(module)
    for node in found.body if found else ():
        if isinstance(node, ast.Assign) and any(isinstance(each, ast.Name) and each.id == name for each in node.targets):
            try:
                return ast.literal_eval(node.value)
            except ValueError as error:
                raise ConfigError(f"{module}.{name} is no literal, and is read without running the file; write it down there") from error
    return missing
