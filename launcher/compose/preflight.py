"""How much a command may ask of Hydra and OmegaConf before they are let at it: what was typed, and what refers to what.

Both resolve `${a}${a}` by doing it twice, and parse one reference in a millisecond and brackets by recursion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import Container
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from launcher.config.bounds import DEPTH, DIGITS, NODES, too_tangled
from launcher.errors import ConfigError

WORDS = 1_000
CHARACTERS = 4_000
"""Of one argument; and sixteen times as many of all."""
REFERENCES = 200
"""That are followed for one text, and for all values that are nothing but a reference."""
TEXT = 64 << 10
"""Characters of a text that is put together by references."""

_INSTEAD = "write down what is meant"
_ASKS = re.compile(r"\s*\$\{\s*(oc\.env|oc\.decode|now|hydra|python_version)\s*:")
"""Whole values that are no part of the config."""


def check_words(words: Sequence[str]) -> None:
    """Raises ConfigError."""
    characters, instead = sum(map(len, words)), "put it into a yaml: conf/exp/mine.yaml"
    if len(words) > WORDS or characters > 16 * CHARACTERS:
        raise ConfigError(f"{len(words):,} arguments of {characters:,} characters, which is too much for a command; {instead}")
    for word in words:
        if len(word) > CHARACTERS:
            raise ConfigError(f"{word[:60]}…: an argument of {len(word):,} characters; {instead}")
        if reason := too_tangled(word):
            raise ConfigError(f"{word[:60]}…: {reason}; type something simpler")
        if (digits := max(map(len, re.findall(r"[0-9_]+", word)), default=0)) > DIGITS:
            raise ConfigError(f"{word[:60]}…: a number of {digits:,} digits; type one of at most {DIGITS}")


class _Walk:
    """What a config would be with every reference to a list or a mapping replaced by it."""

    def __init__(self) -> None:
        self.values = 0

    def of(self, node: Any, path: str, depth: int = 0) -> None:
        """Raises ConfigError."""
        if depth > DEPTH:
            raise ConfigError(f"{path[:60]}: it contains itself, or is nested deeper than {DEPTH} levels; {_INSTEAD}")
        for key, child in _children(node):
            where = f"{path}.{key}" if path else str(key)
            self.values += 1
            if self.values > 2 * NODES:
                raise ConfigError(f"{where[:60]}: with all it refers to, the config has too many values; {_INSTEAD}")
            value = self._meant(child)
            if isinstance(value, DictConfig | ListConfig):
                self.of(value, where, depth + 1)

    def _meant(self, child: Any) -> Any:
        raw: Any = child._content if isinstance(child, Container) else child._val  # pyright: ignore
        if not isinstance(raw, str) or not raw.lstrip().startswith("${") or _ASKS.match(raw):
            return child
        try:
            return child._dereference_node()  # pyright: ignore[reportPrivateUsage]
        except (OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
            if _INSTEAD in str(error):
                raise
            return None  # whoever needs it will say so


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    content: Any = node._content  # pyright: ignore[reportPrivateUsage]
    if isinstance(content, dict):
        yield from cast("dict[Any, Any]", content).items()
    elif isinstance(content, list):
        yield from enumerate(cast("list[Any]", content))


def check(config: Any) -> None:
    """Raises ConfigError, or what OmegaConf raises of a reference with too many behind it."""
    before = _Limits.followed
    _Limits.followed += 1  # all that is followed here counts together
    try:
        _Walk().of(config, "")
    finally:
        _Limits.followed = before


def created(values: Any) -> Any:
    """The config that a run was frozen with, which somebody else may have written since, for OmegaConf. Raises ConfigError."""
    install()
    try:
        config = OmegaConf.create(values)
        check(config)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise ConfigError(f"{key}: the stored config cannot be read: {str(error).splitlines()[0]}; start a new run") from error
    return config


class _Limits:
    """What of OmegaConf and Hydra is called through, from `install` on."""

    resolve: Any = None
    load: Any = None
    followed = 0


def install() -> None:
    """In this process, from now on."""
    if _Limits.resolve is None:
        _Limits.resolve, _Limits.load = Container.resolve_parse_tree, ConfigLoaderImpl.load_configuration
        Container.resolve_parse_tree = _resolve
        ConfigLoaderImpl.load_configuration = _load


def _resolve(self: Any, *args: Any, **kwargs: Any) -> Any:
    before = _Limits.followed
    _Limits.followed += 1
    try:
        if _Limits.followed > REFERENCES:
            raise InterpolationResolutionError(f"more than {REFERENCES:,} references behind one; {_INSTEAD}")
        value = _Limits.resolve(self, *args, **kwargs)
        if isinstance(value, str) and len(value) > TEXT:
            raise InterpolationResolutionError(f"a text of {len(value):,} characters; {_INSTEAD}")
        return value
    finally:
        if before == 0:
            _Limits.followed = 0


def _load(self: Any, *args: Any, **kwargs: Any) -> DictConfig:
    config = _Limits.load(self, *args, **kwargs)
    check(config)
    return config
