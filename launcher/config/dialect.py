"""One dialect of yaml for writing and for reading: OmegaConf's, in which `1e5` is a number (PyYAML's own takes it for a text)."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Generator
from typing import Any

import yaml
from omegaconf import _utils

from launcher.config import bounds

_omegaconfs = _utils.get_yaml_loader
"""As it is before `as_typed` puts another in its place."""
_PLAIN_INT = re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)")


@functools.cache
def _loader() -> Any:
    return bounds.bounded(_omegaconfs())


class _Dumper(yaml.SafeDumper):
    """Quotes a text that either of the two would read as something else."""


@functools.cache
def _dumper() -> type[_Dumper]:
    ours, theirs = yaml.SafeDumper.yaml_implicit_resolvers, _loader().yaml_implicit_resolvers
    _Dumper.yaml_implicit_resolvers = {key: [*theirs.get(key, ()), *ours.get(key, ())] for key in ours.keys() | theirs.keys()}
    return _Dumper


def _text(dumper: Any, text: str) -> Any:
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None  # line breaks to yaml, which other quotes fold
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def write(values: Any) -> str:
    return yaml.dump(values, Dumper=_dumper(), sort_keys=False, allow_unicode=True)


def read(text: str) -> Any:
    """Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_loader())


@contextlib.contextmanager
def as_typed() -> Generator[None]:
    """While the config's files are read, `2024_11_21`, `0123` and `1:30` in them are the texts they look like, not 20241121, 83 and 90.

    They pass through OmegaConf's one loader, which has no switch for it. Where a number is due, `1_000` still becomes one.
    """
    original = _utils.get_yaml_loader

    def loader() -> Any:
        made = bounds.bounded(_omegaconfs())
        made.add_constructor("tag:yaml.org,2002:int", _whole_number)
        return made

    _utils.get_yaml_loader = loader
    try:
        yield
    finally:
        _utils.get_yaml_loader = original


def _whole_number(loader: Any, node: Any) -> Any:
    text = str(node.value)
    return loader.construct_yaml_int(node) if _PLAIN_INT.fullmatch(text) else text
