"""What differs between runs, as sections of a table: of each key the value in each run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.beside import members
from launcher.beside.members import Member
from launcher.config import tree
from launcher.trust import reading

ABSENT = "–"
"""Where a run has no such key."""
UNKNOWN: Any = object()
"""Where nobody knows: it cannot be read, or is not there yet."""
_SUMMARY = ("steps", "seconds", "samples_per_second", "attempts")
_VERSIONS = ("torch", "accelerate", "precision", "world")
_MOST_FILES = 40
"""That are listed."""


@dataclass(frozen=True)
class Section:
    title: str
    head: str
    """In a line: how many differ, and how many are the same."""
    rows: Mapping[str, tuple[Any, ...]]
    """Key -> its value in each run, in their order."""


def sections(runs: Sequence[Member]) -> list[Section]:
    return [_config(runs), _code(runs), _data(runs), _versions(runs), _metrics(runs)]


def warnings(runs: Sequence[Member]) -> list[str]:
    """What cannot be read, and whether the numbers are of the same data."""
    found = [fault for run in runs for fault in run.faults]
    standins = [run.label for run in runs if _is_standin(run)]
    prints = {str(run.of_data("fingerprint")) for run in runs if run.of_data("fingerprint")}
    targets = {str(run.of_data("_target_")) for run in runs if run.of_data("_target_")}
    if 0 < len(standins) < len(runs):
        found.append(f"THE NUMBERS ARE OF OTHER DATA: the built-in stand-in, not the real data set, in {_some(standins)}")
    elif standins:
        found.append("all numbers are of the built-in stand-in, not of the real data set")
    if len(targets) > 1:
        found.append(f"THE NUMBERS ARE OF OTHER DATA: data._target_ is {_some(sorted(targets))}")
    elif len(prints) > 1:
        found.append(f"THE NUMBERS ARE OF OTHER DATA: {len(prints)} different data.fingerprint")
    return found


def _is_standin(run: Member) -> bool:
    return run.summary.get("data_is_standin") is True


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _differing(title: str, what: str, keys: Sequence[str], of: Callable[[Member, str], Any], runs: Sequence[Member]) -> Section:
    """A run of which a key is not known (UNKNOWN) differs from none."""
    rows = {key: tuple(of(run, key) for run in runs) for key in keys}
    differ = {key: values for key, values in rows.items() if len({shown(value) for value in values if value is not UNKNOWN}) > 1}
    count = f"{len(differ)} of {len(rows)} {what} differ" if differ else f"all {len(rows)} {what} are the same" if rows else f"no {what}"
    return Section(title, count, {key: tuple("?" if value is UNKNOWN else value for value in values) for key, values in differ.items()})


def shown(value: Any) -> str:
    """A cell."""
    if value is ABSENT or isinstance(value, str):
        return value or "''"
    return f"{value:.6g}" if isinstance(value, float) else tree.shown(value)


def _config(runs: Sequence[Member]) -> Section:
    readable = [run for run in runs if run.config]
    keys = list(dict.fromkeys(key for run in readable for key in run.config))
    return _differing("config", "keys", keys, lambda run, key: run.config.get(key, ABSENT) if run.config else UNKNOWN, runs)


def _code(runs: Sequence[Member]) -> Section:
    """By package where it lay in its place, by file where it was copied."""
    packages = [dict(run.plan.packages) if run.plan else {} for run in runs]
    if len({run.plan.code_hash for run in runs if run.plan}) <= 1:
        return Section("code", "the same", {})
    names = list(dict.fromkeys(name for each in packages for name in each))
    rows = {name: tuple(each.get(name, ABSENT)[:12] for each in packages) for name in names}
    copies = members.copied_files(runs)
    files = sorted({name for each in copies for name in each})
    rows |= {f"file {name}": tuple(each.get(name, ABSENT)[:12] if each else ABSENT for each in copies) for name in files}
    differ = {key: values for key, values in rows.items() if len({*values}) > 1}
    kept = dict([*differ.items()][:_MOST_FILES])
    more = f", of which {len(kept)} are shown" if len(kept) < len(differ) else ""
    hashes = tuple(run.plan.code_hash[:12] if run.plan else ABSENT for run in runs)
    return Section("code", f"{len(differ)} packages and files differ{more}", {"all of it": hashes, **kept})


def _data(runs: Sequence[Member]) -> Section:
    def of(run: Member, key: str) -> Any:
        if key == "is the stand-in":
            return run.summary.get("data_is_standin", UNKNOWN)
        return str(run.of_data("fingerprint") or ABSENT)[:16] if run.config else UNKNOWN

    return _differing("data", "marks", ["data.fingerprint", "is the stand-in"], of, runs)


def _versions(runs: Sequence[Member]) -> Section:
    def of(run: Member, key: str) -> Any:
        if key in ("launcher", "python"):
            return UNKNOWN if run.plan is None else run.plan.version if key == "launcher" else run.plan.python
        found = run.summary.get(key)
        return found if isinstance(found, str) else UNKNOWN

    return _differing("versions", "versions", [*_VERSIONS, "launcher", "python"], of, runs)


def _metrics(runs: Sequence[Member]) -> Section:
    """All of them: that two are the same is a finding. Of two runs with what the second has more."""
    names = dict.fromkeys(name for run in runs for name in run.summary if name.startswith(("val_", "test_")))
    rows = {name: tuple(_number(run.summary.get(name)) for run in runs) for name in (*names, *_SUMMARY)}
    rows = {name: values for name, values in rows.items() if {*values} != {ABSENT}}
    missing = [run.label for run in runs if not run.summary]
    head = "side by side" + (f"; no summary yet of {_some(missing)}" if missing else "")
    return Section("metrics", head if rows else "none yet", rows)


def _number(value: Any) -> Any:
    return value if reading.number(value) is not None or isinstance(value, float) else ABSENT
