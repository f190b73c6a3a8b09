"""How large a config may be: whoever wrote a yaml or an override may have meant to tire the machine out, not to train.

A yaml is judged while it is read, before anything is made of it: aliases count as what they stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

YAML_BYTES = 256 << 10
NODES = 5_000
"""Values and keys of one yaml, or of one config. PyYAML reads ten a millisecond."""
DEPTH = 64
DIGITS = 100
"""Of a whole number. Python writes none that has more than 4,300."""


def bounded(loader: Any) -> Any:
    """That class of PyYAML's, which raises YAMLError for a document that is too large, too deep or contains itself."""

    composed: Callable[[Any, Any, Any], Any] = loader.compose_node

    class Bounded(loader):
        def __init__(self, stream: Any) -> None:
            text = stream if isinstance(stream, str | bytes) else stream.read(YAML_BYTES + 1)
            if len(text) > YAML_BYTES:
                raise yaml.YAMLError(f"a yaml of more than {YAML_BYTES >> 10} KiB, which no config is")
            super().__init__(text)  # pyright: ignore[reportUnknownMemberType]
            self.name = getattr(stream, "name", "a yaml")  # for whoever corrects it
            self._level = self._nodes = 0
            self._weights: dict[int, int] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            is_alias, before = self.check_event(yaml.AliasEvent), self._nodes
            self._level += 1
            if self._level > DEPTH:
                raise yaml.YAMLError(f"a yaml that is nested deeper than {DEPTH} levels")
            node = composed(self, parent, index)
            self._level -= 1
            if is_alias and id(node) not in self._weights:
                raise yaml.YAMLError("a yaml that contains itself")
            self._nodes += self._weights[id(node)] if is_alias else 1
            self._weights[id(node)] = self._nodes - before
            if self._nodes > NODES:
                raise yaml.YAMLError(f"a yaml of more than {NODES:,} keys and values")
            if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and len(node.value) > DIGITS:
                raise yaml.YAMLError(f"a number of {len(node.value):,} digits")
            return node

    return Bounded
