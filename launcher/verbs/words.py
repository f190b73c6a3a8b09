"""What was typed after a verb: `key=value` words that it declares, flags, and names. Whoever reads such words reads them by this, so that
a slip gets the same line everywhere: what was typed, why it cannot be, and what to type.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from launcher.errors import ConfigError

_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9-]*(=.*)?", re.DOTALL)
_WHOLE = re.compile(r"[0-9]{1,19}")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)


class Option(NamedTuple):
    shown: str
    """Its value in the usage."""
    default: Any
    read: Callable[[str], Any]
    """Raises ValueError with what to type instead."""
    of: Sequence[str] = ()
    """What models predict to which it says something; none: to all."""


def text(shown: str, default: str = "", of: Sequence[str] = ()) -> Option:
    return Option(shown, default, str, of)


def whole(default: int, least: int, most: int, of: Sequence[str] = ()) -> Option:
    def read(value: str) -> int:
        if not _WHOLE.fullmatch(value) or not least <= int(value) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(value)

    return Option(str(default), default, read, of)


def number(default: float, least: float, most: float, of: Sequence[str] = ()) -> Option:
    def read(value: str) -> float:
        if not _NUMBER.fullmatch(value) or not least <= float(value) <= most:
            raise ValueError(f"a number from {least:g} to {most:g}")
        return float(value)

    return Option(f"{default:g}", default, read, of)


def yes_no(default: bool) -> Option:
    """`true` or `false`; the usage shows the one that changes something."""

    def read(value: str) -> bool:
        if value not in ("true", "false"):
            raise ValueError("true or false")
        return value == "true"

    return Option("false" if default else "true", default, read)


def several(shown: str, of: Sequence[str] = ()) -> Option:
    def read(value: str) -> tuple[str, ...]:
        if not all(found := value.split(",")):
            raise ValueError(f"names with a comma between them, as in {shown}")
        return tuple(found)

    return Option(shown, (), read, of)


def one_of(*choices: str, default: str) -> Option:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return Option("|".join(choices), default, read)


def _checkpoint(value: str) -> str:
    if not re.fullmatch(r"newest|best|[0-9]{1,16}", value):
        raise ValueError("newest, best, or the number of a step")
    return value


CHECKPOINT = Option("newest|best|STEP", "newest", _checkpoint)
"""Of a run."""


class Typed(NamedTuple):
    """What was meant."""

    names: list[str]
    values: Mapping[str, Any]
    """Of every option, typed or not."""
    typed: Mapping[str, str]
    """Those that were typed, and the flags, each as the word that it was."""
    of: Mapping[str, Sequence[str]]

    def check_model(self, predicts: str) -> None:
        """Raises ConfigError for what was typed and says nothing to a model that predicts this."""
        for name, word in self.typed.items():
            if (kinds := self.of[name]) and predicts not in kinds:
                raise ConfigError(
                    f"{word}: that is for models that predict {' or '.join(kinds)}, and this one predicts {predicts}; leave it out"
                )


class Words:
    """Those that a verb takes."""

    def __init__(
        self,
        verb: str,
        names: str,
        options: Mapping[str, Option],
        *,
        takes: str = "",
        flags: Mapping[str, Sequence[str]] | None = None,
        least: int = 1,
        most: int | None = None,
    ) -> None:
        """`names`: how the usage has them; `takes`: in words what they are; `least` and `most`: how many. `flags`: each with its `of`."""
        self._verb, self._takes, self._least, self._most = verb, takes, least, most
        self._options, self._flags = options, flags or {}
        shown = (f"[{name}={option.shown}]" for name, option in options.items())
        self.usage = " ".join((f"{verb} {names}", *shown, *(f"[{flag}]" for flag in self._flags)))

    def read(self, words: Sequence[str]) -> Typed:
        """Raises ConfigError."""
        found, others = self.picked(words)
        typed = {**found.typed, **{word: word for word in others if word in self._flags}}
        names = [word for word in others if word not in self._flags]
        for word in names:
            self._check_name(word)
        if len(names) < self._least or (self._most is not None and len(names) > self._most):
            raise ConfigError(f"{self._verb} takes {self._takes}: {self.usage}")
        return found._replace(names=names, typed=typed)

    def picked(self, words: Sequence[str]) -> tuple[Typed, list[str]]:
        """The options, and all words that are none: for a verb of which the others are a config's. Raises ConfigError."""
        typed: dict[str, str] = {}
        values = {name: option.default for name, option in self._options.items()}
        others: list[str] = []
        for word in words:
            name, is_option, value = word.partition("=")
            if not is_option or name not in self._options:
                others.append(word)
                continue
            if name in typed:
                raise ConfigError(f"{word}: {typed[name]} is there already; type {name}= once")
            typed[name], values[name] = word, self._value(name, value)
        of = {**self._flags, **{name: option.of for name, option in self._options.items()}}
        return Typed([], values, typed, of), others

    def _value(self, name: str, value: str) -> Any:
        option = self._options[name]
        if not value:
            raise ConfigError(f"{name}=: there is nothing after it; type {name}={option.shown}, or leave it out")
        try:
            return option.read(value)
        except ValueError as error:
            raise ConfigError(f"{name}={value}: type {error}") from None

    def _check_name(self, word: str) -> None:
        """Raises ConfigError where somebody meant an option, or a flag."""
        name, is_option, _ = word.partition("=")
        if os.path.lexists(word):
            return
        if is_option and name.isidentifier():
            near = _nearest(f"{name}=", [f"{each}=" for each in self._options])
            raise ConfigError(f"{self._verb} {name}=: there is no such option{near}")
        if _FLAG.fullmatch(word):
            raise ConfigError(f"{self._verb} {word}: there is no such flag{_nearest(word, [*self._flags])}; type {self.usage}")


def _nearest(word: str, choices: Sequence[str]) -> str:
    from launcher.config.targets import nearest  # for mistakes alone

    return nearest(word, choices)
