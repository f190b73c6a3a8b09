"""Hydra's composition of the words that all cases share, made once: it takes five times as long as all that the launcher does.

What is typed is parsed and put in by Hydra itself, as at a start; the yamls are not read again. What could change which yamls those are
(a choice, a deletion, a sweep) is composed as ever.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from fuzz.fields import all_fields
from launcher.compose import compose, preflight
from launcher.config.config import GROUPS

_KNOWN: dict[tuple[str, ...], bytes] = {}
_SHARED = frozenset(word for field in all_fields() for word in field.before)
_REAL: Any = compose.hydra_compose


@contextmanager
def hydra() -> Generator[None]:
    """Within it."""
    _prepare()
    real = ConfigStore.store

    def store(self: ConfigStore, name: str, **more: Any) -> Any:
        """The schema is there."""
        return name == "schema" or real(self, name, **more)

    with mock.patch.object(compose, "hydra_compose", _composed), mock.patch.object(ConfigStore, "store", store):
        yield


@cache
def _prepare() -> None:
    """What a start does once."""
    compose.prepare([])


def _composed(name: str, overrides: Sequence[str], return_hydra_config: bool) -> Any:
    chosen = tuple(word for word in overrides if word in _SHARED)
    typed = OverridesParser.create().parse_overrides([word for word in overrides if word not in chosen])
    if not all(map(_is_value, typed)):
        return _REAL(name, overrides=[*overrides], return_hydra_config=return_hydra_config)
    if chosen not in _KNOWN:
        _KNOWN[chosen] = pickle.dumps(_REAL(name, overrides=[*chosen], return_hydra_config=return_hydra_config))
    config = pickle.loads(_KNOWN[chosen])  # our own, of this process: a copy of a config, faster than deepcopy
    ConfigLoaderImpl._apply_overrides_to_config(typed, config)  # pyright: ignore[reportPrivateUsage]
    config.hydra.overrides.task = []
    for word in overrides:
        config.hydra.overrides.task.append(word)
    preflight.check(config)
    return config


def _is_value(override: Override) -> bool:
    key = override.key_or_group
    simple = override.package is None and not override.is_delete() and not override.is_sweep_override()
    return simple and key not in GROUPS and "/" not in key and not key.startswith("hydra")
