"""`run`, `render`, `plan` and `resume`: the verbs that make or continue a run."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from launcher import batch, check, lock, rundir, submit, targets
from launcher.attend import attend
from launcher.clusters.slurm import Slurm
from launcher.compose import compose
from launcher.errors import ConfigError, Interrupted, LaunchError, RunError
from launcher.freeze import NOT_COMPARED, Frozen, code_hash, freeze, resolve
from launcher.plan import Cluster, Plan
from launcher.report import closing
from launcher.rundir import RunDir


def render(words: list[str]) -> int:
    """Print the script that `run` would start. Writes nothing."""
    print(_one(words, "render").script, end="")
    return 0


def plan(words: list[str]) -> int:
    """Print the frozen plan as JSON. Writes nothing."""
    print(_one(words, "plan").plan.to_json(), end="")
    return 0


def run(words: list[str]) -> int:
    """Train; with `-m`, every member one after the other. The last line of stdout is the run directory."""
    failures: list[LaunchError] = []

    def job(config: DictConfig, overrides: list[str]) -> None:
        if failures and isinstance(failures[-1], Interrupted):
            return
        try:
            _launch(config, overrides)
        except LaunchError as error:  # a sweep goes on with its next member
            failures.append(error)
            if multirun:
                print(f"launcher: {' '.join(overrides)}: {error}", file=sys.stderr)

    multirun = "-m" in words or "--multirun" in words
    for warning in check.check_environment(os.environ):
        _warn(warning)
    compose(words, job)
    if not failures:
        return 0
    if multirun and not isinstance(failures[-1], Interrupted):
        raise type(failures[0])(f"{len(failures)} of the sweep's runs failed; the first: {failures[0]}")
    raise failures[-1]


def resume(words: list[str]) -> int:
    """Continue a run from its newest good checkpoint, by the plan it was submitted with."""
    if len(words) != 1:
        raise ConfigError("resume takes one run: a path, an id or a name; for example: python -m launcher resume cifar")
    here = rundir.find(words[0])
    _continue(here, here.read_plan(), _cluster_of(here))
    return 0


def _one(words: list[str], verb: str) -> Frozen:
    if "-m" in words or "--multirun" in words:
        raise ConfigError(f"{verb} shows one run; leave out --multirun")
    frozen: list[Frozen] = []
    compose(words, lambda config, overrides: frozen.append(freeze(config, overrides)))
    if not frozen:
        raise SystemExit(0)  # --cfg, --info and the like: Hydra has answered
    return frozen[0]


def _launch(config: DictConfig, overrides: list[str]) -> None:
    freeze(config, overrides)  # every mistake in the config surfaces before any data is touched
    pinned = submit.prepare_data(resolve(config)["data"])
    OmegaConf.update(config, "data", pinned, merge=True, force_add=True)
    if pinned.get("source") == "standin":
        config.name = f"{config.name}-standin"
    start = None
    while True:
        frozen = freeze(config, overrides)
        if isinstance(frozen.cluster, Slurm) and start is None:
            start = batch.check(frozen.cluster, frozen)
        try:
            here = rundir.create(Path(frozen.plan.run_dir))
            break
        except FileExistsError:
            if config.id is not None:
                _go_on(RunDir(frozen.plan.run_dir), frozen, str(config.resume))
                return
            continue  # another run was given this millisecond as its id
    try:
        if isinstance(frozen.cluster, Slurm):
            batch.copy_code(frozen, frozen.cluster, here)
        here.freeze(frozen.plan, frozen.config, frozen.script)
        here.log_event("submitted", overrides=overrides, version=frozen.plan.version, code_hash=frozen.plan.code_hash)
    except BaseException:
        shutil.rmtree(here.path, ignore_errors=True)  # nothing half-written stays
        raise
    rundir.remember(here.path.parent.parent)
    _start(here, frozen.plan, frozen.cluster, start or "")


def _start(here: RunDir, plan: Plan, cluster: Cluster, start: str = "") -> None:
    """Stay with a run on this machine until it ends; hand a batch job to its scheduler and return."""
    if isinstance(cluster, Slurm):
        batch.queue(here, cluster, start)
        print(here, flush=True)
        return
    _finish(here, attend(here, plan, cluster))


def _go_on(here: RunDir, frozen: Frozen, how: str) -> None:
    """The same command with the same id: continue, if it is the same run."""
    deadline = time.monotonic() + 5
    while not here.plan.exists():
        if time.monotonic() > deadline:
            raise RunError(f"{here} is no complete run directory; remove it or choose another id=…")
        time.sleep(0.05)  # the other of two simultaneous submits is still writing it
    changed = [line for line in check.differences(_config_of(here), yaml.safe_load(frozen.config)) if _compared(line)]
    if changed:
        raise ConfigError(f"id={here.path.name} is a run with another config ({'; '.join(changed[:5])}); choose another id=…")
    _continue(here, here.read_plan(), frozen.cluster, fresh=how == "never")


def _compared(line: str) -> bool:
    return line.split(":")[0] not in NOT_COMPARED


def _continue(here: RunDir, plan: Plan, cluster: Cluster, *, fresh: bool = False) -> None:
    if cluster.attached:
        lock.refuse_if_held(here.lock)
    elif (job := batch.active_job(here)) is not None:
        raise RunError(batch.already(here, job))
    if fresh:
        here.set_checkpoints_aside()
    summary = here.read_summary()
    if summary is not None and summary["state"] == "done":
        print("this run is done already")
        _finish(here, summary)
        return
    if cluster.world() != plan.world:
        raise ConfigError(f"{here} was planned for {plan.world}, here is {cluster.world()}; run it where it was planned")
    if cluster.attached and code_hash() != plan.code_hash:
        _warn("the code has changed since this run was submitted; it continues with the code as it is now")
    _start(here, plan, cluster)


def _finish(here: RunDir, summary: dict[str, Any]) -> None:
    print(closing(here, summary))
    print(here, flush=True)


def _config_of(here: RunDir) -> dict[str, Any]:
    try:
        return yaml.safe_load(rundir.read_text(here.config))
    except yaml.YAMLError as error:
        raise RunError(f"{here.config} is not readable as YAML; start a new run") from error


def _cluster_of(here: RunDir) -> Cluster:
    config = _config_of(here)
    targets.check({"cluster": config["cluster"]}, config["trust"])
    return targets.build(config["cluster"])


def _warn(text: str) -> None:
    print(f"launcher: warning: {text}", file=sys.stderr)
