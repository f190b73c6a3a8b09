"""What is not a pure function is asked once: `${now:%f}` gives another answer each time, and a run is planned in several looks."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from launcher.config.references import escaped
from launcher.errors import ConfigError

_ASKS = re.compile(r"\$\{\s*(?!oc\.)[\w.]+\s*:")
"""A resolver other than OmegaConf's own. `oc.env` is kept as it is written, for it may be a secret; the others are pure."""
_ENV = re.compile(r"\$\{\s*oc\.env\s*:")


def ask_once(config: DictConfig, shared: dict[str, Any] | None = None) -> None:
    """Ask what there is to ask, and write the answers into `config`. Raises ConfigError.

    `shared` are the answers that all members of a sweep have in common: where they go.
    """
    if not _ASKS.search(str(OmegaConf.to_container(config))):
        return
    if shared and "runs_dir" in shared:
        config.runs_dir = shared["runs_dir"]
    with open_dict(config):
        _walk(config, "")
    if shared is not None:
        shared["runs_dir"] = OmegaConf.to_container(config)["runs_dir"]  # type: ignore[index]


def _walk(node: Any, path: str) -> None:
    written: Any = OmegaConf.to_container(node)
    keys: list[Any] = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        where, text = f"{path}.{key}" if path else str(key), written[key]
        if isinstance(text, str) and _ASKS.search(text):
            answer = _answer(node, key, where, text)
            node[key] = escaped(answer) if isinstance(answer, str) else answer
        elif isinstance(text, dict | list):
            _walk(node[key], where)


def _answer(node: Any, key: Any, where: str, written: str) -> Any:
    if _ENV.search(written):
        raise ConfigError(f"{where}={written}: ${{oc.env:…}} stays as it is written and the rest is asked once; give each a key of its own")
    try:
        return node[key]
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
