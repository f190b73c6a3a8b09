"""Where a model takes its initial weights from: the keywords that its file names in `PRETRAINED` (layout.py), directories.

They say where training begins and nothing else. So they are looked for where a run is planned, written down as whole paths, and left out
where a checkpoint says what the weights are: by then the directory may be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from launcher.config import layout, references, tree
from launcher.errors import ConfigError


def settle(config: DictConfig, model: Mapping[str, Any]) -> bool:
    """Write whole paths into `config`, of whose values `model` is the resolved node. Whether any was not one."""
    found = False
    for where, node, key in list(_places({"model": model})):
        whole = str(Path(node[key]).absolute())
        changed = references.changed({key: node[key]}, {key: whole})
        OmegaConf.update(config, where, changed, merge=True, force_add=True) if changed else None
        found = found or bool(changed)
    return found


def check(model: Mapping[str, Any]) -> None:
    """Raises ConfigError for a directory that is not there. What is in it the model itself will judge: that needs torch."""
    for where, node, key in _places({"model": model}):
        if not _is_directory(node[key]):
            raise ConfigError(f"{where}.{key}={node[key]}: there is no such directory; type that of weights, or null to draw them")


def _is_directory(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # a name that is too long
        return False


def is_named(model: Mapping[str, Any]) -> bool:
    return any(True for _ in _places({"model": model}))


def without(model: Mapping[str, Any]) -> dict[str, Any]:
    """The node of a model whose weights will come from a checkpoint."""
    return _without(model, {(id(node), key) for _, node, key in _places({"model": model})})


def _without(value: Any, named: Set[tuple[int, str]]) -> Any:
    if tree.is_mapping(value):
        return {key: None if (id(value), key) in named else _without(child, named) for key, child in value.items()}
    return [_without(child, named) for child in cast("list[Any]", value)] if isinstance(value, list) else value


def _places(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(place of a node, the node, its keyword), of the keywords that have a value."""
    for where, node in tree.walk(config):
        if tree.is_mapping(node) and isinstance(target := node.get("_target_"), str):
            for key in layout.names(target.rpartition(".")[0], "PRETRAINED", "weights"):
                if isinstance(node.get(key), str):
                    yield where, node, key
