"""A run is where it is: before one that was moved or copied goes on, what names its place is written anew.

So it is where the directory in which it was started, or the interpreter, is gone: a project that was renamed has its runs elsewhere.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from launcher import PROJECT
from launcher.clusters.protocol import Cluster
from launcher.compose.freeze import stored_cluster, stored_config, worker_env
from launcher.errors import RunError, readable
from launcher.plan import Plan
from launcher.rundir import origin
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.start.rendered import mark
from launcher.trust import owner


def settle(here: RunDir) -> None:
    """Nobody else is at it. Raises RunError where it cannot go on from this place."""
    plan = here.read_plan()
    stayed = origin.is_at(here, plan.run_dir)
    if stayed and all(Path(path).exists() for path in (plan.directory, plan.project, plan.python)):
        return
    if not stayed:
        _refuse_links(here)
    cluster, copied = stored_cluster(here), origin.original(here) is not None
    settled = _plan(here, plan, cluster)
    try:
        script = cluster.render(settled)
    except ValueError as error:  # a line break in its name
        raise RunError(f"{str(here)!r} cannot be the place of a run ({error}); rename it") from error
    # The ledger first: were a copy cut off behind the plan, the original's jobs would be taken for its own.
    here.log_event("moved", **{"from": plan.run_dir, "to": str(here), "copy": copied, "script": mark(script)})
    write_atomic(here.script, script)
    write_atomic(here.plan, settled.to_json())  # last: until it is there, all this is done again
    what = f"a copy of {plan.run_dir}" if copied else f"a run that was at {plan.run_dir} before"
    if stayed:
        what = f"a run of {plan.directory}, {plan.project} and {plan.python}, not all of which are there any more"
    print(readable(f"launcher: {here} is {what}; it goes on in {settled.directory if stayed else 'this place'}"), file=sys.stderr)


def _refuse_links(here: RunDir) -> None:
    """A copy is its owner's, and has what was planted in the original: what is written there must not go elsewhere. Raises RunError."""
    inside = here.path.resolve()
    for place, folders, files in os.walk(here.path):
        for path in (Path(place) / name for name in (*folders, *files)):
            if path.is_symlink() and not (target := path.resolve()).is_relative_to(inside):
                raise RunError(
                    f"{path} is a link out of this run, to {target}: look at it, put there what is meant or take it away, and resume again"
                )
        folders[:] = [name for name in folders if Path(place) / name != here.code]  # is only read


def _plan(here: RunDir, plan: Plan, cluster: Cluster) -> Plan:
    old, new = _apart(Path(plan.run_dir), here.path)
    project = str(PROJECT) if cluster.attached else _now(plan.project, old, new)
    if not Path(project).is_dir():
        raise RunError(f"{here}: the code that it was submitted with was at {plan.project} and is gone; put it back, or start a new run")
    directory = _now(plan.directory, old, new)
    pythons = (path for path in (plan.python, _now(plan.python, old, new)) if Path(path).exists() and not owner.fault(Path(path)))
    return dataclasses.replace(
        plan,
        run_dir=plan.run_dir if origin.is_at(here, plan.run_dir) else str(here),
        project=project,
        directory=directory if Path(directory).is_dir() and not owner.fault(Path(directory)) else str(Path.cwd()),
        python=sys.executable if cluster.attached else next(pythons, sys.executable),
        env=worker_env(stored_config(here), plan.world.device),
    )


def _apart(old: Path, new: Path) -> tuple[Path, Path]:
    """Without the end that both have: what was renamed, or copied, or mounted elsewhere."""
    while old.name and old.name == new.name:
        old, new = old.parent, new.parent
    return old, new


def _now(path: str, old: Path, new: Path) -> str:
    """What lay below `old` has come along, if it is there; all else is where it was."""
    if Path(path).is_relative_to(old) and (moved := new / Path(path).relative_to(old)).exists():
        return str(moved)
    return path
