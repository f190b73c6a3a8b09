"""Walking a config as plain nested dicts and lists; a place in it is written `train.epochs`, `model.widths[0]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, cast

ABSENT: Any = object()
"""What `look_up` answers for a key that is not there; null is a value."""


def is_mapping(node: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(node, Mapping)


def children(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path, value) of what lies directly below a dict or a list; nothing below anything else."""
    if is_mapping(node):
        for key, child in node.items():
            yield (f"{path}.{key}" if path else str(key)), child
    elif isinstance(node, list):
        for index, child in enumerate(cast("list[Any]", node)):
            yield f"{path}[{index}]", child


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything below `node`, parents before children."""
    for where, child in children(node, path):
        yield where, child
        yield from walk(child, where)


def leaves(node: Any) -> Iterator[tuple[str, Any]]:
    """(path, value) of everything that is neither dict nor list."""
    return ((path, value) for path, value in walk(node) if not isinstance(value, Mapping | list))


def look_up(node: Any, path: str) -> Any:
    """The value at `train.epochs`, or ABSENT."""
    for part in path.split("."):
        if not is_mapping(node) or part not in node:
            return ABSENT
        node = node[part]
    return node


def shown(value: Any) -> str:
    """A value as one would type it."""
    if value is None or value == "":
        return "null" if value is None else "''"
    return str(value).lower() if isinstance(value, bool) else str(value)
