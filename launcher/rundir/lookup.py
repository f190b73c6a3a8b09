"""Finding runs and sweeps by what a user types: those of the project at hand, others by their path or where all are asked for.

The project at hand is a directory: the one where the command is typed, or within a git work tree the nearest one above that has a `runs`.
Its runs are those in ./runs, those where conf/local says that runs go, and those whose command was typed in it, wherever they are
(docs/decisions/0040-a-name-means-this-projects-run.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from launcher import CONF
from launcher.errors import ConfigError, RunError
from launcher.rundir.rundir import LEDGER_BYTES, RunDir
from launcher.trust import foreign, noted, owner, reading

_NOTED = "runs_dirs"
_AHEAD_SECONDS = 86_400.0
"""How far another machine's clock may be ahead of ours. A later time comes of a clock that was wrong: it would win for ever."""


# ---------------------------------------------------------------- which directories there are


def remember(runs_dir: Path) -> None:
    """Note a runs_dir, so that its runs are found again."""
    noted.note(_NOTED, str(runs_dir))


def _project() -> tuple[Path, ...]:
    """The directories that are the project at hand: its own, and that in which we are."""
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return ()
    tree = next((place for place in (here, *here.parents) if (place / ".git").exists()), here)
    inside = [here, *(place for place in here.parents if place.is_relative_to(tree))]
    return tuple(dict.fromkeys((next((place for place in inside if (place / "runs").is_dir()), tree), here)))


def _configured() -> list[Path]:
    """Where conf/local says that runs go. Read without a yaml parser, for whose import `status` would wait."""
    try:
        text = reading.text(CONF / "local" / "machine.yaml")
    except (OSError, UnicodeDecodeError):
        return []
    said = re.search(r"^runs_dir:[ \t]*(['\"]?)([^'\"#\n]+?)\1[ \t]*(?:#.*)?$", text, re.MULTILINE)
    if said is None:
        return []
    word = re.sub(r"\$\{oc\.env:(\w+)(?:,([^}]*))?\}", lambda name: os.environ.get(name[1], name[2] or ""), said[2])
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return [Path(word).expanduser().absolute()]
    return []


class Known(NamedTuple):
    """Every run of a kind there is, the oldest first."""

    here: list[RunDir]
    """Of the project at hand."""
    elsewhere: list[RunDir]

    def all(self) -> list[RunDir]:
        return by_age([*self.here, *self.elsewhere])


def known() -> Known:
    project = _project()
    here = dict.fromkeys(run for root in _own(project) for run in _in(root))
    others = dict.fromkeys(run for root in noted.words(_NOTED) for run in _in(Path(root)) if run not in here)
    typed_here = dict.fromkeys(run for run in others if _typed_in(run) in project)
    return Known(by_age(map(RunDir, [*here, *typed_here])), by_age(RunDir(run) for run in others if run not in typed_here))


def _own(project: Sequence[Path]) -> list[Path]:
    return [*(place / "runs" for place in project), *_configured()]


def _in(root: Path) -> list[Path]:
    return [path.parent.resolve() for path in root.glob("*/*/plan.json") if path.is_file() and os.access(path, os.R_OK)]


def damaged() -> list[str]:
    """What lies in the project at hand where a run should be and is none, with a word of why."""
    return [f"{place}: {why}" for root in _own(_project()) for place in sorted(root.glob("[!.]*/[!.]*")) if (why := _no_run(place))]


def _no_run(place: Path) -> str:
    """Empty where it is one, or nothing that a launcher has made."""
    try:
        if not place.is_dir():
            return "a link in a circle" if place.is_symlink() and not place.exists() else ""
        inside = {path.name for path in place.iterdir()}
        if "plan.json" in inside:
            with reading.opened(place / "plan.json"):
                return ""
    except PermissionError:  # `closed` counts those
        return ""
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return "a run directory without its plan" if not inside or inside & {"config.yaml", "job.sh", "events.jsonl", "attempts"} else ""


def closed() -> str:
    """In words: whose runs there are in this project's directories of runs that may not be read. Empty where there are none."""
    roots = dict.fromkeys(_own(_project()))
    found = Counter((root, owner.name_of(place.lstat().st_uid)) for root in roots for place in _closed(root))
    return "; ".join(
        f"{count} director{'ies' if count > 1 else 'y'} in {root} may not be read: ask {whose} for runs_mode=group, or to chmod -R g+rX"
        for (root, whose), count in found.items()
    )


def _closed(root: Path) -> list[Path]:
    names = _visible(root)
    runs = [run for name in names for run in _visible(name)]
    shut = [place for place in (root, *names, *runs) if place.is_dir() and not os.access(place, os.R_OK | os.X_OK)]
    return shut + [run for run in runs if run not in shut and (run / "plan.json").exists() and not os.access(run / "plan.json", os.R_OK)]


def _visible(place: Path) -> list[Path]:
    try:
        return [entry for entry in place.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def _typed_in(run: Path) -> Path | None:
    """The directory in which the command was typed, by the plan."""
    try:
        return Path(reading.record(reading.whole(run / "plan.json"))["directory"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


# ---------------------------------------------------------------- which is the newest


def by_age(runs: Iterable[RunDir]) -> list[RunDir]:
    """By when they were submitted, the newest last: ids are the user's own, and time zones differ. A copy comes after its original."""
    return sorted(runs, key=lambda run: (submitted(run), _changed(run), str(run)))


def submitted(run: RunDir) -> float:
    """Seconds since the epoch: the first line of the ledger, or the first one that has a time; else the age of the plan."""
    with contextlib.suppress(OSError):
        for entry in reading.records(reading.whole(run.events, LEDGER_BYTES).splitlines()):
            if (when := _believable(entry.get("time"))) is not None:
                return when
    with contextlib.suppress(OSError):
        written = run.plan.stat().st_mtime
        return _believable(written) or 0.0
    return 0.0


def _believable(when: object) -> float | None:
    seconds = reading.number(when)
    return seconds if seconds is not None and 0 < seconds < time.time() + _AHEAD_SECONDS else None


def _changed(run: RunDir) -> float:
    """Which nobody can set: `cp -a` keeps all other times."""
    try:
        return run.plan.stat().st_ctime
    except OSError:
        return 0.0


# ---------------------------------------------------------------- what a word means


def asked(words: Sequence[str]) -> tuple[list[str], bool]:
    """What was typed without `--all`, and whether that was typed."""
    return [word for word in words if word != "--all"], "--all" in words


def find(word: str, *, everywhere: bool = False, acts: bool = False) -> RunDir:
    """`word` is a path, an id, name/id, or a name: the newest run that has it. Raises ConfigError, or PermissionError.

    `everywhere`: other projects' runs too. `acts`: for a verb that changes something, which never guesses between two directories. Runs of
    mine come before those that somebody else may have put there: a neighbour's name or id stands in the way of nobody.
    """
    path = Path(word)
    foreign.check(path)
    if (path / "plan.json").is_file():
        return RunDir(path.resolve())
    if (path / "plan.json").is_symlink() or (path / "plan.json").exists():
        raise RunError(f"{path}: {_no_run(path)}; type another path")
    runs = known()
    within = runs.all() if everywhere else runs.here
    exact = mine_first([run for run in within if word in (run.path.name, run.label)])
    if len(exact) > 1:
        raise ConfigError(f"{word}: {len(exact)} runs have this id; give a path: {_listed(exact)}")
    named = mine_first([run for run in within if run.path.parent.name == word])
    if exact and named and not is_mine(exact[-1].path) and is_mine(named[-1].path):
        exact = []
    if not exact and acts:
        newest = list({run.path.parent: run for run in named}.values())
        if len(newest) > 1:
            raise ConfigError(f"{word}: runs of this name are in {len(newest)} directories; give a path: {_listed(newest)}")
    if exact or named:
        return (exact or named)[-1]
    others = [run for run in runs.elsewhere if word in (run.path.name, run.label, run.path.parent.name)]
    paths = [str(run) for run in others] + [str(place) for place in sweeps(word, everywhere=True)]
    if paths:
        raise ConfigError(f"{word}: no such run in this project; give the path of one elsewhere, or add --all: {_listed(paths)}")
    unread = f"; {words}" if (words := closed()) else ""
    near = _near(word, mine_first(within))
    raise ConfigError(f"{word}: no such run{near}; `python -m launcher status` lists them, or give the path of a run directory{unread}")


def _near(word: str, runs: Sequence[RunDir]) -> str:
    """What was meant, as like as not: a name that goes on from the word, as one does where the data are the stand-in; else one that is
    spelt nearly so, or an id."""
    import difflib  # for mistakes alone

    names = list(dict.fromkeys(run.path.parent.name for run in reversed(runs)))
    longer = [name for name in names if word and name.startswith(word)]
    spelt = difflib.get_close_matches(word, [*names, *(run.label for run in runs), *(run.path.name for run in runs)], n=1, cutoff=0.7)
    return f"; did you mean {(longer or spelt)[0]}?" if longer or spelt else ""


def is_mine(place: Path) -> bool:
    """A first look at a run or a sweep: what is in it, `owner.refuse` looks at."""
    return not owner.fault(place)


def mine_first(runs: list[RunDir]) -> list[RunDir]:
    """Those that are mine; all where none is."""
    return [run for run in runs if is_mine(run.path)] or runs


def namesakes(word: str, newest: RunDir) -> list[RunDir]:
    """All runs of a name, where `word` was that and `find` has taken the newest of them; else that one alone."""
    if word != newest.path.parent.name or word in (newest.path.name, newest.label):
        return [newest]
    return by_age(mine_first([RunDir(path.parent) for path in newest.path.parent.glob("*/plan.json")]))


def sweeps(word: str, *, everywhere: bool = False) -> list[Path]:
    """The sweeps that have `word` for their id: one in each runs_dir, at most."""
    project = _project()
    own = [place for root in _own(project) if (place := _sweep(root, word))]
    others = [place for root in noted.words(_NOTED) if (place := _sweep(Path(root), word))]
    return list(dict.fromkeys(own + [place for place in others if everywhere or _first_typed_in(place) in project]))


def _sweep(root: Path, word: str) -> Path | None:
    place = root / ".sweeps" / word
    return place.resolve() if (place / "sweep.json").is_file() else None


def _first_typed_in(place: Path) -> Path | None:
    """Of a sweep: by its first member, which lies beside it."""
    try:
        first = Path(reading.record(reading.whole(place / "sweep.json"))["members"][0]["run"])
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None
    return _typed_in(place.parent.parent / first.parent.name / first.name) or _typed_in(first)


def _listed(places: Sequence[object]) -> str:
    shown = ", ".join(str(place) for place in places[-5:])
    return shown if len(places) <= 5 else f"{shown} and {len(places) - 5} more"
