"""Starting one run, or going on with one: here, until it ends, or as a batch job, and return."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from launcher import PROJECT
from launcher.clusters import submit
from launcher.clusters.batch import already
from launcher.clusters.protocol import Cluster, Fewer
from launcher.code import code_hash
from launcher.compose import check, scripted, trusted
from launcher.compose.freeze import NOT_COMPARED, Frozen, freeze, resolve, stored_cluster, stored_config
from launcher.config import dialect, pretrained, references
from launcher.errors import ClusterError, ConfigError, NoAnswer, RunError, readable
from launcher.plan import Plan
from launcher.rundir import lookup, rundir
from launcher.rundir.rundir import RunDir
from launcher.start import device_probe, inside, rendered, torch_words, unlocked
from launcher.start.move import check as check_words
from launcher.start.move import move
from launcher.start.report import closing
from launcher.start.settle import settle
from launcher.trust import owner


def launch(config: DictConfig, overrides: list[str]) -> RunDir:
    """Freeze a config, make its run directory, start it. Raises any LaunchError."""
    frozen = freeze(config, overrides)  # every mistake, in the config or to the scheduler, surfaces before any data is touched
    when = frozen.cluster.check(frozen)
    if frozen.cluster.attached:
        inside.suggest(os.environ, frozen.plan)
    torch_words.check()
    values = resolve(config)
    unlocked.check(values)
    trusted.note(values["trust"])
    chosen = "" if scripted.is_one(values) else _prepared(config, overrides, frozen)
    while True:
        frozen = freeze(config, overrides, chosen=chosen)
        try:
            here = rundir.create(Path(frozen.plan.run_dir), frozen.plan.umask)
            os.umask(rundir.umask_of(here))
            break
        except FileExistsError:
            if config.id is not None:
                return _same_id(RunDir(frozen.plan.run_dir), frozen, str(config.resume))
            continue  # another run was given this millisecond as its id
    try:
        frozen.cluster.prepare(frozen, here)
        here.freeze(frozen.plan, frozen.config, frozen.script)
        known = {"version": frozen.plan.version, "code_hash": frozen.plan.code_hash, "script": rendered.mark(frozen.script)}
        here.log_event("submitted", overrides=overrides, **known)
    except BaseException:
        _discard(here)  # nothing half-written stays
        raise
    lookup.remember(here.path.parent.parent)
    try:
        with frozen.cluster.stay(here):
            _start(here, frozen.cluster, when)
    except NoAnswer:
        raise  # there may be a job now
    except ClusterError:
        if not frozen.cluster.attached:
            _discard(here)
        raise
    return here


def _prepared(config: DictConfig, overrides: list[str], frozen: Frozen) -> str:
    """The data are ready, and the model can be made: nobody waits in a queue for what lacks. Returns why that device, where it was
    measured. Raises any LaunchError."""
    values = resolve(config)
    data = values["data"]
    found = submit.prepare_data(data)
    pin(config, data, found.pinned)
    check.check_held(values, found.holds)
    if pretrained.is_named(values["model"]) and not Path(frozen.plan.run_dir).exists():
        submit.try_model(values["model"])
    return device_probe.settle(config, overrides, frozen)


def pin(config: DictConfig, data: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Write into the config what preparing the data has found."""
    OmegaConf.update(config, "data", references.changed(data, found), merge=True, force_add=True)
    if found.get("source") == "standin":
        config.name = f"{config.name}-standin"


def _discard(here: RunDir) -> None:
    shutil.rmtree(here.path, ignore_errors=True)
    with contextlib.suppress(OSError):
        here.path.parent.rmdir()


def _start(here: RunDir, cluster: Cluster, when: str = "") -> None:
    try:
        summary = cluster.start(here, when)
    except Fewer as fewer:
        print(readable(f"launcher: {fewer}; going on without: {' '.join(fewer.words)}"), file=sys.stderr)
        _start(here, move(here, cluster, fewer.words))
        return
    if summary is None:
        print(here, flush=True)
    else:
        _finish(here, summary)


def _same_id(here: RunDir, frozen: Frozen, how: str) -> RunDir:
    """The same command with the same id: continue, if it is the same run."""
    deadline = time.monotonic() + 5
    while not here.plan.exists():
        if time.monotonic() > deadline:
            raise RunError(f"{here} is no complete run directory; remove it or choose another id=…")
        time.sleep(0.05)  # the other of two simultaneous submits is still writing it
    changed = [line for line in check.differences(stored_config(here), dialect.read(frozen.config)) if _compared(line)]
    if changed:
        raise ConfigError(f"id={here.path.name} is a run with another config ({'; '.join(changed[:5])}); choose another id=…")
    go_on(here, fresh=how == "never")
    return here


def _compared(line: str) -> bool:
    return re.split(r"[.:]", line)[0] not in NOT_COMPARED


def go_on(here: RunDir, words: list[str] | None = None, *, fresh: bool = False) -> None:
    """Continue a run from its newest good checkpoint, by the plan it was submitted with; `words` are new values under `cluster`.

    Raises any LaunchError. One that is refused has changed nothing.
    """
    check_words(words or [])
    owner.refuse(here.path)
    os.umask(rundir.umask_of(here))
    cluster = stored_cluster(here)
    here.read_plan()  # one that is damaged is named, whatever became of the run
    if not fresh and _is_done(here):
        return
    trusted.refuse_more(here, stored_config(here)["trust"])
    trusted.note(trusted.mine(stored_config(here)["trust"]))  # so that `status` may ask its cluster
    unlocked.check(stored_config(here), None if fresh else here)
    if (job := cluster.job_of(here)) is not None:
        raise RunError(already(here, job))
    with cluster.stay(here):
        _go_on(here, cluster, words or [], fresh)


def _go_on(here: RunDir, cluster: Cluster, words: list[str], fresh: bool) -> None:
    """Nobody else is at it."""
    settle(here)
    if words:
        cluster = move(here, cluster, words)
    plan = here.read_plan()
    if fresh:
        here.set_checkpoints_aside()
        here.log_event("began_anew")
    if _is_done(here):
        return
    if cluster.world() != plan.world:
        raise ConfigError(f"{here} was planned for {plan.world}, here is {cluster.world()}; run it where it was planned")
    rendered.refuse_another(here, plan, lambda: stored_cluster(here))
    if cluster.attached:
        torch_words.check()
        warn_of_edits(here, plan)
    _start(here, cluster)


def warn_of_edits(here: RunDir, plan: Plan, what_it_does: str = "continues") -> None:
    now = code_hash.of_packages(PROJECT, stored_config(here)["trust"], Path(plan.directory))
    if names := code_hash.changed(plan.packages, now):
        what = f"the code of {', '.join(names)}" if plan.packages else "the code"
        warning = f"{what} has changed since this run was submitted; it {what_it_does} with the code as it is now"
        print(f"launcher: warning: {warning}", file=sys.stderr)


def _is_done(here: RunDir) -> bool:
    """Says so."""
    summary = here.read_summary()
    if summary is None or summary["state"] != "done":
        return False
    print("this run is done already")
    _finish(here, summary)
    return True


def _finish(here: RunDir, summary: dict[str, Any]) -> None:
    print(closing(here, summary))
    print(here, flush=True)
