"""How large a config may be: whoever wrote a yaml or an override may have meant to tire the machine out, not to train.

A yaml is judged while it is read, before anything is made of it: aliases count as what they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

YAML_BYTES = 256 << 10
NODES = 5_000
"""Values and keys of one yaml, or of one config. PyYAML reads ten a millisecond."""
DEPTH = 64
NESTING = 16
"""Of brackets in one text."""
REFERENCES = 200
"""In one text; OmegaConf parses one in a millisecond."""
ALL_REFERENCES = 300
"""In one yaml."""
DIGITS = 100
"""Of a whole number. Python writes none that has more than 4,300."""


def bounded(loader: Any) -> Any:
    """That class of PyYAML's, which raises YAMLError for a document that is too large, too deep or contains itself."""

    composed: Callable[[Any, Any, Any], Any] = loader.compose_node

    class Bounded(loader):
        def __init__(self, stream: Any) -> None:
            text = stream if isinstance(stream, str) else stream.read(YAML_BYTES + 1)
            self._where = f"{name}: " if (name := getattr(stream, "name", "")) else ""
            self._refuse(_refused(text))
            super().__init__(text)  # pyright: ignore[reportUnknownMemberType]
            self.name = getattr(stream, "name", self.name)  # for whoever corrects it
            self._level = self._nodes = 0
            self._weights: dict[int, int] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            is_alias, before = self.check_event(yaml.AliasEvent), self._nodes
            self._level += 1
            if self._level > DEPTH:
                self._refuse(f"it is nested deeper than {DEPTH} levels")
            node = composed(self, parent, index)
            self._level -= 1
            if is_alias and id(node) not in self._weights:
                self._refuse("it contains itself")
            self._nodes += self._weights[id(node)] if is_alias else 1
            self._weights[id(node)] = self._nodes - before
            if self._nodes > NODES:
                self._refuse(f"it has more than {NODES:,} keys and values")
            if isinstance(node, yaml.ScalarNode):
                digits = len(node.value) if node.tag.endswith(":int") else 0
                self._refuse(f"it has a number of {digits:,} digits" if digits > DIGITS else too_tangled(node.value))
            return node

        def _refuse(self, reason: str) -> None:
            if reason:
                raise yaml.YAMLError(f"{self._where}{reason}, which no config is")

    return Bounded


def _refused(text: str) -> str:
    """What can be said before it is parsed, which takes a second for what follows."""
    if len(text) > YAML_BYTES:
        return f"it is larger than {YAML_BYTES >> 10} KiB"
    if text.count("${") > ALL_REFERENCES:
        return f"it has more than {ALL_REFERENCES:,} references"
    return f"it is nested deeper than {DEPTH} levels" if _OPENING.search(text) else ""


_OPENING = re.compile(rf"[\[{{](?:\s*[\[{{]){{{DEPTH}}}")


def too_tangled(text: str) -> str:
    """Why a grammar that knows brackets should not be let at `text`; empty where it may. Of a yaml, what has no `${` is no grammar's."""
    if "${" not in text and "=" not in text:
        return ""
    deepest = depth = 0
    for mark in re.findall(r"[\[\](){}]", text):
        depth += 1 if mark in "[({" else -1
        deepest = max(deepest, depth)
    if deepest > NESTING:
        return f"brackets nested {deepest:,} deep"
    return f"{count:,} references" if (count := text.count("${")) > REFERENCES else ""
