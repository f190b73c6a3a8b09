"""What runs that are compared say of themselves. What of it cannot be read is said, and the rest is compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.config import tree
from launcher.errors import RunError, readable
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir, read_text
from launcher.trust import reading
from launcher.trust.terminal import one_line

_MOST_FILES = 20_000
"""Of a copy of code, which has hundreds: who has more in it means something else."""
_NOT_COMPARED = ("name", "id")
"""Keys of a config that say which run it is, which its column says."""


@dataclass(frozen=True)
class Member:
    run: RunDir
    label: str
    """Name/id; its path where another has the same."""
    config: Mapping[str, Any]
    """Path -> value, as frozen."""
    plan: Plan | None
    summary: Mapping[str, Any]
    faults: list[str] = field(default_factory=list[str])
    """What could not be read, in a line each."""

    @property
    def state(self) -> str:
        return str(self.summary.get("state", "no summary"))

    def of_data(self, key: str) -> Any:
        return self.config.get(f"data.{key}")


def read(runs: Sequence[RunDir]) -> list[Member]:
    labels = [run.label for run in runs]
    return [_member(run, run.label if labels.count(run.label) == 1 else str(run)) for run in runs]


def _member(run: RunDir, label: str) -> Member:
    label, faults = one_line(label), list[str]()
    if not run.path.is_dir():
        return Member(run, label, {}, None, {}, [f"{label}: there is no such run any more"])
    plan: Plan | None = None
    try:
        plan = run.read_plan()
    except RunError as error:
        faults.append(readable(str(error)))
    summary = run.read_summary()
    if summary is None and run.summary.exists():
        faults.append(f"{label}: summary.json is damaged, and its metrics are not compared")
    return Member(run, label, _config(run, label, faults), plan, summary or {}, faults)


def _config(run: RunDir, label: str, faults: list[str]) -> dict[str, Any]:
    import yaml  # with OmegaConf a twentieth of a second

    from launcher.config import dialect

    try:
        config = dialect.read(read_text(run.config))
    except (RunError, yaml.YAMLError, ValueError) as error:
        faults.append(readable(f"{label}: config.yaml is not readable ({str(error)[:200]}), and is not compared"))
        return {}
    if not tree.is_mapping(config):
        faults.append(f"{label}: config.yaml is not the config of a run, and is not compared")
        return {}
    return {path: value for path, value in tree.walk(config) if path not in _NOT_COMPARED and not (_has_more(value))}


def _has_more(value: Any) -> bool:
    return isinstance(value, Mapping | list) and bool(value)


def copied_files(members: Sequence[Member]) -> list[dict[str, str]]:
    """Of each run the files of its copy of the code: name -> hash; none where it was not copied. Members of a sweep share one."""
    known: dict[Path, dict[str, str]] = {}
    found: list[dict[str, str]] = []
    for member in members:
        place = _copy(member)
        if place is not None and place not in known:
            known[place] = _hashes(place)
        found.append(known[place] if place is not None else {})
    return found


def _copy(member: Member) -> Path | None:
    """Its own, or that of its sweep; a plan may name any place, and `/` is no copy."""
    if member.run.code.is_dir():
        return member.run.code.resolve()
    shared = Path(member.plan.project) if member.plan else None
    return shared if shared and shared.name == "code" and (shared.parent / "sweep.json").is_file() else None


def _hashes(place: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(place):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            if len(found) == _MOST_FILES:
                return found
            path = Path(folder, name)
            try:
                found[str(path.relative_to(place))] = hashlib.sha256(reading.whole(path)).hexdigest()
            except OSError as error:
                found[str(path.relative_to(place))] = f"unreadable ({error.strerror})"
    return found
