"""A sweep that was given to a scheduler: which members it has, what became of each, what came out of them.

runs_dir/.sweeps/<id>/
  sweep.json     every member's overrides and run directory, written before anything is submitted
  code/          the one copy of the code that all members run
  arrays/0/      one per array job: array.sh, <index> -> run directory, <index>.log
  tb/<number>    -> the member's event files, for TensorBoard's hparams view
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launcher.errors import ConfigError, RunError
from launcher.rundir import lookup, rundir
from launcher.rundir.objective import Objective, is_number, is_objective
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.trust import foreign, reading
from launcher.trust.secret import mask


class Entry(NamedTuple):
    """One member."""

    number: int
    overrides: tuple[str, ...]
    """Those that differ between members, as typed."""
    run: RunDir


class Sweep:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = path / "sweep.json"
        self.code = path / "code"
        self.arrays = path / "arrays"
        self.tensorboard = path / "tb"

    @property
    def id(self) -> str:
        return self.path.name

    def write(self, entries: list[Entry], objective: Any) -> None:
        """`objective` as it is written in the config. Raises RunError."""
        members = [{"number": entry.number, "overrides": mask.everywhere(entry.overrides), "run": str(entry.run)} for entry in entries]
        write_atomic(self.ledger, json.dumps({"objective": objective, "members": members}, indent=1) + "\n")

    def entries(self) -> list[Entry]:
        """Raises RunError."""
        try:
            return [self._entry(raw) for raw in self._read()["members"]]
        except (ValueError, TypeError, KeyError) as error:
            raise self._damaged(error) from error

    def _entry(self, raw: dict[str, Any]) -> Entry:
        """Raises ValueError, TypeError or KeyError for what `write` has not written."""
        if (number := reading.whole_number(raw["number"])) is None or "\0" in raw["run"]:
            raise ValueError("a member without a number or a path")
        return Entry(number, tuple(map(str, raw["overrides"])), self._member(Path(raw["run"])))

    def _member(self, written: Path) -> RunDir:
        """Beside the sweep, be that moved or copied; else where it was."""
        beside = RunDir(self.path.parent.parent / written.parent.name / written.name)
        return beside if reading.is_file(beside.plan) else RunDir(written)

    @property
    def objective(self) -> Objective:
        written = self._read().get("objective")
        if not is_objective(written):
            raise self._damaged(f"its objective is {str(written)[:80]!r}")
        return Objective.of(written)

    def _read(self) -> dict[str, Any]:
        try:
            return reading.record(rundir.read_text(self.ledger))
        except ValueError as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> RunError:
        return RunError(f"{self.ledger} is no ledger of a sweep ({why}); look at its members one by one")


def where(runs_dir: Path, sweep_id: str) -> Sweep:
    return Sweep(runs_dir / ".sweeps" / sweep_id)


def find(word: str, *, everywhere: bool = False) -> Sweep | None:
    """A sweep by its path or its id, as launcher/rundir/lookup.py finds a run; None where there is none. Raises ConfigError for two."""
    foreign.check(Path(word))
    if (Path(word) / "sweep.json").is_file():
        return Sweep(Path(word).resolve())
    found = lookup.sweeps(word, everywhere=everywhere)
    mine = [place for place in found if lookup.is_mine(place)]
    if not mine and found and _is_a_run_of_mine(word, everywhere):
        return None  # whoever calls a sweep of theirs as I call a run
    found = mine or found
    if len(found) > 1:
        raise ConfigError(f"{word}: {len(found)} sweeps have this id; give a path: {', '.join(map(str, found))}")
    return Sweep(found[0]) if found else None


def runs(words: Sequence[str], *, everywhere: bool = False) -> list[RunDir]:
    """Runs, and of sweeps the members, each once, as they were typed. Raises ConfigError or RunError for a word that is neither."""
    found = {run.path: run for word in words for run in _runs(word, everywhere)}
    return list(found.values())


def _runs(word: str, everywhere: bool) -> list[RunDir]:
    found = find(word, everywhere=everywhere)
    return [lookup.find(word, everywhere=everywhere)] if found is None else [entry.run for entry in found.entries()]


def _is_a_run_of_mine(word: str, everywhere: bool) -> bool:
    try:
        return lookup.is_mine(lookup.find(word, everywhere=everywhere).path)
    except ConfigError:
        return False


def differing(overrides: list[list[str]]) -> list[tuple[str, ...]]:
    """Of each member's overrides those that not all members share."""
    shared = set(overrides[0]).intersection(*map(set, overrides[1:]))
    return [tuple(word for word in words if word not in shared) for words in overrides]


# ---------------------------------------------------------------- what came out


def results(sweep: Sweep) -> tuple[list[dict[str, Any]], Objective]:
    """One row a member: its overrides, its state and its final metrics; best first, those without a result last. And by what."""
    rows = list(_rows(sweep))
    objective = sweep.objective.found_in(rows)
    return sorted(rows, key=_order(objective)), objective


def _rows(sweep: Sweep) -> Iterator[dict[str, Any]]:
    for entry in sweep.entries():
        summary = entry.run.read_summary() or {}
        metrics = {name: value for name, value in summary.items() if name.startswith(("test_", "val_")) and _may_be_shown(value)}
        settings = {key: value for key, _, value in (word.lstrip("+").partition("=") for word in entry.overrides)}
        shared = {name: value for name in ("steps", "seconds") if _may_be_shown(value := summary.get(name))}
        yield {"number": entry.number, **settings, "state": summary.get("state", "missing"), **metrics, **shared, "run": str(entry.run)}


def _may_be_shown(value: object) -> bool:
    return value is None or isinstance(value, float) or reading.number(value) is not None


def _order(objective: Objective) -> Any:
    """Best first, then those without a number as they were submitted."""
    sign = 1 if objective.mode == "min" else -1

    def key(row: Mapping[str, Any]) -> tuple[bool, float, int]:
        value = row.get(objective.metric)
        return (False, sign * float(value), int(row["number"])) if is_number(value) else (True, 0.0, int(row["number"]))

    return key


def table(rows: list[dict[str, Any]]) -> str:
    """As CSV, a column for whatever any row has."""
    import csv

    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
