"""`python -m launcher.train.prepare`: the data node, what its config asked the environment for, and where files and modules are looked for,
as JSON on stdin; what `prepare()` found, and what the data hold, as the last line of stdout. Or the model node, where it has weights to
look at.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from launcher.config import targets
from launcher.errors import ConfigError, LaunchError, interrupted
from launcher.train import data_set
from launcher.train.data_set import exit_code, user_line
from launcher.trust.ending import ending
from launcher.trust.secret import mask
from launcher.trust.sieve import masked

HELD = ("num_classes", "channels", "in_features", "out_features")
"""What a data set may say of its samples, by the names that models have for it."""


def main() -> int:
    return served(lambda given: _tried(given["model"]) if "model" in given else _found(given["data"]))


def served(work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """Answer what is asked on stdin (launcher/clusters/submit.py), or say which line the user is to see. Returns the exit code."""
    os.umask(0o077)
    answer_to = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints, stdout carries the answer alone
    given: dict[str, Any] = json.load(sys.stdin)
    os.chdir(given["directory"])
    sys.path[:] = given["path"]
    for name in given["asked"]:
        mask.ask(name)
    sys.stdout, sys.stderr = masked(sys.stdout), masked(sys.stderr)
    try:
        with ending():
            answer = work(given)
    except KeyboardInterrupt as told:  # by the launcher, which has been told itself
        return interrupted(told)
    except LaunchError as error:
        if os.environ.get("LAUNCHER_DEBUG"):
            raise
        answer = {"error": str(error), "exit_code": error.exit_code}
    except (ValueError, OSError) as error:
        if os.environ.get("LAUNCHER_DEBUG"):
            raise
        answer = {"error": user_line(error), "exit_code": exit_code(error)}
    with os.fdopen(answer_to, "w") as out:
        out.write(json.dumps(answer) + "\n")
    return 0


def _found(node: dict[str, Any]) -> dict[str, Any]:
    """Raises ConfigError, ValueError or OSError."""
    try:
        data = data_set.first(node)
    except ConfigError as error:
        raise ConfigError(user_line(error)) from error
    pinned: dict[str, Any] = data.prepare() if hasattr(data, "prepare") else {}
    return {"pinned": pinned, "holds": _held(data)}


def _held(data: Any) -> dict[str, int]:
    """What it says of its samples by attributes that are called as a model's keywords are (data/README.md)."""
    said = {name: getattr(data, name, None) for name in HELD}
    said["num_classes"] = said["num_classes"] or len(getattr(data, "class_names", ()))
    return {name: number for name, number in said.items() if isinstance(number, int) and number}


def _tried(node: dict[str, Any]) -> dict[str, Any]:
    """On the meta device, where a tensor is a shape. What the constructor says of its own keys counts; what else fails there may not fail
    elsewhere."""
    import torch

    try:
        with torch.device("meta"):
            targets.build(node)
    except ConfigError as error:
        if str(error).startswith("model."):
            return {"error": str(error), "exit_code": error.exit_code}
    except Exception as error:  # a stranger's constructor, which may need more than shapes: the workers will say
        print(f"launcher: the model could not be looked at before the start ({type(error).__name__}: {error})", file=sys.stderr)
    return {"pinned": {}, "holds": {}}


if __name__ == "__main__":
    sys.exit(main())
