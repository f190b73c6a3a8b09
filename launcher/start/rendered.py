"""A run's job.sh is run as it was rendered, or not at all: what stands in it is what runs."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from launcher import PROJECT
from launcher.errors import RunError
from launcher.plan import Cluster, Plan
from launcher.rundir.rundir import RunDir, read_text, write_atomic
from launcher.trust import owner


def mark(script: str) -> str:
    """What the ledger keeps of a script."""
    return hashlib.sha256(script.encode()).hexdigest()[:16]


def refuse_another(here: RunDir, plan: Plan, cluster: Callable[[], Cluster]) -> None:
    """Raises RunError where job.sh is neither what the ledger says nor what the plan renders, or it starts what may be another's. One that
    is gone is written anew.
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
    if mark(script) not in known[-1:] and script != cluster().render(plan):
        raise RunError(
            f"{here.script} is not what was rendered for this run: somebody has edited it since, or an older launcher wrote it; to have it "
            f"written anew, type: rm {shlex.quote(str(here.script))}, and resume again"
        )
