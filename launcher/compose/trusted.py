"""Whose code a run may be made of: what a run says of that itself is somebody else's word as soon as it is a copy.

So `trust` in a stored config counts as far as this user has given it: in conf/local, or with a command that named a --config-dir, which is
noted when the run is made (docs/decisions/0100-whose-a-run-is.md). What a job starts by itself, when it is requeued, asks nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import yaml

from launcher import CONF
from launcher.config import dialect, targets
from launcher.errors import RunError
from launcher.trust import noted, reading


def note(trust: Iterable[str]) -> None:
    """Of a config that was composed from the user's own files, and checked."""
    for name in trust:
        noted.note(noted.TRUSTED, name)


def mine(trust: object) -> list[str]:
    """Those names of a stored `trust` that this user has given. Raises ConfigError for one that nobody can give."""
    names = _names(trust)
    targets.check_trust(names)
    given = {*noted.words(noted.TRUSTED), *_local()} if names else set[str]()
    return [name for name in names if any(f"{name}.".startswith(f"{known}.") for known in given)]


def refuse_more(run: object, trust: object) -> None:
    """Raises RunError where the config of `run` trusts what this user does not."""
    known = mine(trust)
    if more := [name for name in _names(trust) if name not in known]:
        raise RunError(
            f"{run}: its config trusts {more[0][:100]}, which you do not; look through the run, put `trust: [{more[0][:100]}]` into "
            "conf/local/machine.yaml if that code may run as you, and resume again"
        )


def _names(trust: object) -> list[str]:
    """Anything may stand there: what is no name is none of a package."""
    return list(map(str, cast("list[Any]", trust))) if isinstance(trust, list) else [] if trust is None else [str(trust)]


def _local() -> list[str]:
    """What conf/local trusts."""
    found: list[str] = []
    for path in sorted(Path(CONF, "local").glob("*.yaml")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
            found += _names(dialect.read(reading.text(path))["trust"])
    return found
