"""`export RUN`: a run's model as one folder that needs none of its code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.clusters import queues, submit
from launcher.errors import RunError, plain
from launcher.exported import draft
from launcher.rundir import lookup
from launcher.rundir.rundir import RunDir
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
    },
    takes="one run",
    most=1,
)


def export(words: list[str]) -> int:
    """Write the folder and print its path as the last line. Raises ConfigError, RunError."""
    words, everywhere = lookup.asked(words)
    (name,), options, *_ = _WORDS.read(words)
    run = lookup.find(name, everywhere=everywhere)
    _check_standing(run, options["unfinished"])
    target = Path(options["to"]).expanduser().absolute() if options["to"] else _place_of(run)
    draft.check(target)
    if options["encrypt"]:
        vault_key.needed("encrypt=true")
        vault.check()
    asked = {"run": str(run.path), "to": str(target), **{key: options[key] for key in ("checkpoint", "onnx", "hf", "encrypt")}}
    for line in _lines(submit.export(asked)):
        print(plain(line))
    return 0


def _check_standing(run: RunDir, is_allowed: bool) -> None:
    """Raises RunError where it is not done, and that was not asked for."""
    word = standing.standing(run, queues.ask([run])).word
    if word != "done" and not is_allowed:
        raise RunError(f"{run} is not done ({word}); wait for it, or type unfinished=true to export the checkpoint that it has by now")


def _place_of(run: RunDir) -> Path:
    """In the run. Raises RunError where somebody else could lead it elsewhere."""
    if why := owner.fault(run.path):
        raise RunError(f"{run}: {why}, and could lead files elsewhere; type to=DIR")
    return run.path / NAME


def _lines(made: Mapping[str, Any]) -> list[str]:
    """The folder's path last."""
    told = made["told"]
    lines = [f"weights of update {made['step']:,}; it predicts {told['predicts']}"]
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
