"""Options of a cluster as they were typed: texts that a script and a scheduler can carry, lists and maps of them, whole numbers."""

from __future__ import annotations

from typing import Any, cast

from launcher.errors import ConfigError

_LONGEST = 4000
"""Characters of one value: some schedulers read an option into a buffer of 8 KiB."""


def check_text(key: str, value: object) -> str:
    """A text below `cluster` that a script and a scheduler can carry. Raises ConfigError."""
    text = str(value)
    if isinstance(value, list | dict) or value is None:
        raise ConfigError(f"cluster.{key}={value!r} cannot be; type one text")
    if any(ord(mark) < 32 or ord(mark) == 127 for mark in text):
        raise ConfigError(f"cluster.{key}={text!r} holds a line break or a control character; leave it out")
    if any("\ud800" <= mark <= "\udfff" for mark in text):
        raise ConfigError(f"cluster.{key}={text!r} is no text in UTF-8; leave out what is none")
    if len(text) > _LONGEST:
        raise ConfigError(f"cluster.{key}={text[:40]!r}… has {len(text)} characters; type at most {_LONGEST}")
    return text


def options(key: str, value: object) -> dict[str, Any]:
    """Name and value below `cluster.<key>`. Raises ConfigError."""
    if not isinstance(value, dict):
        raise ConfigError(f"cluster.{key}={value!r} cannot be; type name and value, as in +cluster.{key}.NAME=VALUE")
    return {str(name): item for name, item in cast("dict[Any, Any]", value).items()}


def texts(key: str, value: object) -> list[str]:
    """A list of texts. Raises ConfigError."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[Any]", value)):
        raise ConfigError(f"cluster.{key}={value!r} cannot be; type a list of texts, as in 'cluster.{key}=[a,b]'")
    return cast("list[str]", value)


def check_whole(key: str, value: object, low: int, wanted: str = "") -> None:
    """Raises ConfigError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"cluster.{key}={value} cannot be; type {wanted or f'a whole number from {low}'}")
