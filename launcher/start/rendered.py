"""A run's job.sh is run as it was rendered, or not at all: what stands in it is what runs."""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from launcher import PROJECT
from launcher.clusters.protocol import Cluster
from launcher.errors import RunError
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir, read_text, write_atomic
from launcher.trust import owner

_MODULE = re.compile(r"(?<!\S)(?:-m|--module) (launcher(?:\.\w+)+)")


def mark(script: str) -> str:
    """What the ledger keeps of a script."""
    return hashlib.sha256(script.encode()).hexdigest()[:16]


def refuse_another(here: RunDir, plan: Plan, cluster: Callable[[], Cluster]) -> None:
    """Raises RunError where job.sh is neither what the ledger says nor what the plan renders, or it starts what may be another's. One that
    is gone is written anew, and so is one, as we left it, that starts what is gone from this launcher.
    """
    for path in (plan.python, plan.project):
        if path not in (str(PROJECT), sys.executable) and (why := owner.fault(Path(path))):
            raise RunError(
                f"{here} would run {path}, which may be another's: {why}; type {owner.WAY_OUT}={Path(path).parent} before the command "
                "if you know all who write there, or start a new run"
            )
    if not here.script.exists():
        script = cluster().render(plan)
        here.log_event("rendered", script=mark(script))
        write_atomic(here.script, script)
        return
    script = read_text(here.script)
    known = [event["script"] for event in here.read_events() if "script" in event]
    is_known = mark(script) in known[-1:]
    if is_known and Path(plan.project) == PROJECT and _starts_what_is_gone(script):
        anew = cluster().render(plan)
        here.log_event("rendered", script=mark(anew))
        write_atomic(here.script, anew)
        return
    if not is_known and script != cluster().render(plan):
        raise RunError(
            f"{here.script} is not what was rendered for this run: somebody has edited it since, or an older launcher wrote it; to have it "
            f"written anew, type: rm {shlex.quote(str(here.script))}, and resume again"
        )


def _starts_what_is_gone(script: str) -> bool:
    """Whether it starts a module of ours that has another place by now: the launcher was updated between stop and resume."""
    places = (PROJECT.joinpath(*name.split(".")) for name in _MODULE.findall(script))
    return not all(place.with_suffix(".py").is_file() or (place / "__main__.py").is_file() for place in places)
