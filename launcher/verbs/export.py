"""`export RUN`: a run's model as one folder that needs none of its code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.clusters import queues, submit
from launcher.errors import Interrupted, RunError, plain
from launcher.exported import draft
from launcher.exported.folder import MANIFEST, Folder
from launcher.rundir import lookup
from launcher.rundir.rundir import RunDir
from launcher.start import unlocked
from launcher.trust import owner, vault, vault_key
from launcher.verbs.words import CHECKPOINT, Words, text, yes_no
from launcher.verdict import standing

NAME = "export"
_WORDS = Words(
    NAME,
    "RUN",
    {
        "to": text("DIR"),
        "checkpoint": CHECKPOINT,
        "onnx": yes_no(True),
        "hf": yes_no(False),
        "unfinished": yes_no(False),
        "encrypt": yes_no(False),
        "replace": yes_no(False),
    },
    takes="one run",
    most=1,
)


def export(words: list[str]) -> int:
    """Write the folder and print its path as the last line. Raises ConfigError, RunError."""
    words, everywhere = lookup.asked(words)
    (name,), options, *_ = _WORDS.read(words)
    run = lookup.find(name, everywhere=everywhere)
    standing.check_saved(run, standing.standing(run, queues.ask([run])), "unfinished=true", options["unfinished"])
    target = Path(options["to"]).expanduser().absolute() if options["to"] else _place_of(run)
    draft.check(target)
    lines = _replaced(run, target, options["replace"] or not options["to"]) + _encrypted(run, options["encrypt"])
    asked = {"run": str(run.path), "to": str(target), **{key: options[key] for key in ("checkpoint", "onnx", "hf", "encrypt")}}
    for line in _lines(_made(asked, target), lines):
        print(plain(line))
    return 0


def _made(asked: dict[str, Any], target: Path) -> dict[str, Any]:
    """Raises Interrupted: then nothing of it is left."""
    try:
        return submit.export(asked)
    except KeyboardInterrupt as told:
        raise Interrupted("stopped; nothing was exported", told) from None
    finally:
        draft.clear(target)  # what its process had no time for


def _replaced(run: RunDir, target: Path, may_be_another: bool) -> list[str]:
    """What is there already, in a line. Raises RunError where that is of another run, and nobody has said that it may go."""
    if not (target / MANIFEST).is_file():
        return []
    plan = run.read_plan()
    try:
        there = Folder(target).told["run"]
        is_same = (there.get("name"), there.get("id")) == (plan.name, plan.id)
        what = f"the export of {there.get('name')}/{there.get('id')}, update {there.get('step')}"
    except RunError as error:
        is_same, what = False, f"an export that cannot be read ({error})"
    if not (is_same or may_be_another):
        raise RunError(
            f"to={target}: {what} is there, and not one of {plan.name}/{plan.id}; type another directory, or replace=true to have this one "
            "in its place"
        )
    return [f"in the place of {what}"]


def _encrypted(run: RunDir, is_asked: bool) -> list[str]:
    """With which key, in a line; and a warning where what was encrypted will not be. Raises KeyFault, RunError."""
    if is_asked:
        mark = vault.mark(vault_key.needed("encrypt=true", new=True))
        vault.check()
        return [f"encrypted with the key {mark[:8]}"]
    if unlocked.mark_of(run):
        words = f"the checkpoints of {run} are encrypted, and this export is not; type encrypt=true to have it encrypted too"
        print(plain(f"launcher: warning: {words}"), file=sys.stderr)
    return []


def _place_of(run: RunDir) -> Path:
    """In the run. Raises RunError where somebody else could lead it elsewhere."""
    if why := owner.fault(run.path):
        raise RunError(f"{run}: {why}, and could lead files elsewhere; type to=DIR")
    return run.path / NAME


def _lines(made: Mapping[str, Any], known: list[str]) -> list[str]:
    """The folder's path last."""
    told = made["told"]
    lines = [*known, f"weights of update {made['step']:,}; it predicts {told['predicts']}"]
    for form, found in told["differences"].items():
        if form != "precision":
            lines.append(
                f"{form:<8} at most {found['largest']:.2g} from the model as it was trained ({found['relative']:.2g} of its largest output)"
            )
    for form, why in told["missing"].items():
        if why == "onnx=false":
            continue
        print(plain(f"launcher: warning: no {form}: {why}"), file=sys.stderr)
    return [*lines, made["to"]]
