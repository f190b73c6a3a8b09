"""Parameter groups: weight decay on matrices alone, and other settings for the parameters whose names match a pattern (`optim.groups`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from launcher.errors import ConfigError

Groups = Mapping[str, Mapping[str, Any]]
"""Pattern of fnmatch, as `*.bias` or `head.*`, to settings of the optimizer. The first pattern that matches a name counts."""


class Named:
    """The trained parameters of `model` by name, and which pattern of `groups` each of them falls to."""

    def __init__(self, model: nn.Module, groups: Groups) -> None:
        """Raises ConfigError for a pattern that no parameter falls to."""
        self.trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._groups = groups
        self._pattern = {name: next((pattern for pattern in groups if fnmatchcase(name, pattern)), None) for name in self.trained}
        for pattern in groups:
            if pattern not in self._pattern.values():
                raise ConfigError(f"optim.groups: {pattern} {_why_empty(pattern, self._pattern)}")

    def split(self, kind: str, settings: Mapping[str, Any], names: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """The groups that an optimizer begins with: what no pattern names, then pattern by pattern; in each matrices and filters with
        the decay of `settings`, vectors without (Goyal et al., 2017, https://arxiv.org/abs/1706.02677, section 5.3), unless the pattern
        sets `weight_decay`. `names`: of what it trains; None: all. `settings`: what this `kind` has for each group, and its values.

        Raises ConfigError for a setting that is none of those.
        """
        names = list(self.trained if names is None else names)
        decay = settings["weight_decay"]
        made = _by_decay([self.trained[name] for name in names if self._pattern[name] is None], decay)
        for pattern, chosen in self._groups.items():
            mine = [name for name in names if self._pattern[name] == pattern]
            if mine and (unknown := [key for key in chosen if key not in settings]):
                raise ConfigError(
                    f"optim.groups: {pattern} sets {unknown[0]}, which {kind} has not, and it trains {mine[0]}; "
                    f"type one of {', '.join(settings)}"
                )
            plain = {key: tuple(value) if isinstance(value, list) else value for key, value in chosen.items()}
            parameters = [self.trained[name] for name in mine]
            split = [{"params": parameters}] if "weight_decay" in plain and mine else _by_decay(parameters, decay)
            made += [{**group, **plain} for group in split]
        return made


def _by_decay(trained: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _why_empty(pattern: str, patterns: Mapping[str, str | None]) -> str:
    """What to type where all that a pattern matches is another's, or where it matches nothing: the uppermost names there are."""
    if taken := next((patterns[name] for name in patterns if fnmatchcase(name, pattern)), None):
        return f"comes after {taken}, which matches all that it does, and the first counts; type it before {taken}"
    tops = dict.fromkeys(f"{top}.*" if dot else top for top, dot, _ in (name.partition(".") for name in patterns))
    return f"matches no trained parameter; type a pattern of names such as {', '.join(tops)}"
