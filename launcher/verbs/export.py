"""`export RUN`: a run's model as one folder that needs none of its code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.clusters import queues, submit
from launcher.errors import ConfigError, RunError, plain
from launcher.exported import draft
from launcher.rundir import lookup
from launcher.rundir.rundir import RunDir
from launcher.trust import owner, vault, vault_key
from launcher.verdict import standing

NAME = "export"
_OPTIONS = {"to": "", "checkpoint": "newest", "onnx": "true", "hf": "false", "unfinished": "false", "encrypt": "false"}
_USAGE = "export RUN [to=DIR] [checkpoint=newest|best|STEP] [onnx=false] [hf=true] [unfinished=true] [encrypt=true]"


def export(words: list[str]) -> int:
    """Write the folder and print its path as the last line. Raises ConfigError, RunError."""
    words, everywhere = lookup.asked(words)
    names, options = _read(words)
    run = lookup.find(names[0], everywhere=everywhere)
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


def _read(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    options: dict[str, Any] = dict(_OPTIONS)
    names: list[str] = []
    for word in words:
        key, is_option, value = word.partition("=")
        if not is_option or "/" in key:
            names.append(word)
        elif key not in options:
            raise ConfigError(f"export {key}=: there is no such option; type {_USAGE}")
        else:
            options[key] = value
    if len(names) != 1 or names[0].startswith("-"):
        raise ConfigError(f"export takes one run: {_USAGE}")
    for key, default in _OPTIONS.items():
        if default in ("true", "false"):
            if options[key] not in ("true", "false"):
                raise ConfigError(f"export {key}={options[key]}: type {key}=true or {key}=false")
            options[key] = options[key] == "true"
    return names, options


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
