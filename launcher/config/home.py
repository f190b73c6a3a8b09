"""`~/` at the beginning of a value: a home, in any key, for nothing but a path begins so. A shell does so for words alone. A `~` or
`~user` that is all there is may be a comment, or a value of somebody's own: it is a home where the key is one of a path."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from launcher.errors import ConfigError

TILDE = re.compile(r"~[\w.-]*(/.*)?", re.DOTALL)


_OF_PATHS = re.compile(r"(dir|root|cache|path|prelude|folder|file|image|python|cd)(\[\d+\])?$")
"""How keys end whose values are paths."""


def expanded(text: str, key: str) -> str:
    """Raises ConfigError, which names `key`, where there is no such home."""
    if not text.startswith("~") or not (_OF_PATHS.search(key) or ("/" in text and TILDE.fullmatch(text))):
        return text
    with contextlib.suppress(RuntimeError, ValueError):  # no user of that name, and what can be no name
        path = Path(text).expanduser()
        if path.is_absolute() and (os.environ.get("HOME", "/") or text[1:2] not in ("", "/")):
            return str(path)
    user = text[1:].partition("/")[0]
    why = f"there is no user {user}" if user else "HOME names no directory, and this user has none"
    raise ConfigError(f"{key}={text}: {why}; type the whole path")


def everywhere(value: Any, key: str = "") -> Any:
    """A config with every `~` put in. Raises ConfigError."""
    if isinstance(value, str):
        return expanded(value, key) if value.startswith("~") else value
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {name: everywhere(child, f"{key}.{name}" if key else str(name)) for name, child in items}
    if isinstance(value, list):
        return [everywhere(child, f"{key}[{index}]") for index, child in enumerate(cast("list[Any]", value))]
    return value


def in_word(before: str, word: str) -> str:
    """A word of the command line as Hydra's grammar takes it, in which `~` means to delete."""
    if before in ("--config-dir", "-cd"):
        return expanded(word, before)
    key, equals, value = word.partition("=")
    if key == "--config-dir" and equals:
        return f"{key}={expanded(value, key)}"
    plain = equals and not key.startswith("-") and TILDE.fullmatch(value) and not set(value) & set(",'\"\\")
    return f"{key}='{value}'" if plain else word
