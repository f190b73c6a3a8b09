"""`doctor`: examine the machines that a command would train on, and say which of them are bad. Nothing is trained.

The command is the one that would train; it is composed and frozen as always, into runs_dir/doctor/<id>, and its processes start as those
of a training do, but for the module they run: launcher/doctor/examine/__main__.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from launcher.compose import check, scripted
from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, build_cluster, freeze, resolve
from launcher.config import targets
from launcher.doctor.findings import ALONE, left_behind, publish, read_report
from launcher.doctor.judge import judge
from launcher.doctor.table import table
from launcher.errors import ClusterError, ConfigError, LaunchError
from launcher.plan import Plan
from launcher.rundir import rundir
from launcher.rundir.rundir import RunDir, write_atomic

NAME = "doctor"


def doctor(words: list[str]) -> int:
    """Raises ClusterError (exit code 4) that names the bad nodes, or says why there is no report; Interrupted after Ctrl-C."""
    if "-m" in words or "--multirun" in words:
        raise ConfigError("doctor examines what one run would get; leave out --multirun")
    found: list[Frozen] = []
    compose(words, lambda config, overrides: found.append(_frozen(config, overrides)))
    if not found:
        return 0  # --cfg, --info and the like: Hydra has answered
    frozen = found[0]
    when = frozen.cluster.check(frozen)
    here = _directory(frozen)
    attempt = frozen.cluster.examine(here, when)
    return _say(here, frozen.plan, _report(here, frozen.plan, attempt))


def _frozen(config: DictConfig, overrides: list[str]) -> Frozen:
    """The command's own plan, with the examination instead of the training."""
    scripted.refuse(config, "doctor")
    values = resolve(config)
    check.check_keys(values)
    check.check_values(values)
    targets.check_trust(values["trust"])
    targets.check(values, values["trust"])
    cluster = build_cluster(values["cluster"])
    changes: dict[str, Any] = {"name": NAME, "train.batch_size": cluster.world().size * values["train"]["accumulate"]}
    changes |= {f"cluster.{key}": value for key, value in cluster.examination().items()}
    with open_dict(config):
        for key, value in changes.items():
            OmegaConf.update(config, key, value)
    frozen = freeze(config, overrides)
    plan = dataclasses.replace(frozen.plan, env=(*frozen.plan.env, (ALONE, "alone")))
    script = frozen.cluster.render(plan)
    if script.count(" launcher.train.worker ") != 1:
        raise ConfigError("runs_dir: the name `launcher.train.worker` in a path is not for the doctor; choose another directory")
    return frozen._replace(plan=plan, script=script.replace(" launcher.train.worker ", " launcher.doctor.examine "))


def _directory(frozen: Frozen) -> RunDir:
    try:
        here = rundir.create(Path(frozen.plan.run_dir))
    except FileExistsError:
        raise ConfigError(f"id={frozen.plan.id} is an examination already; choose another id=…") from None
    frozen.cluster.prepare(frozen, here)
    here.freeze(frozen.plan, frozen.config, frozen.script)
    here.log_event("submitted", overrides=list(frozen.plan.overrides), version=frozen.plan.version, code_hash=frozen.plan.code_hash)
    return here


def _report(here: RunDir, plan: Plan, attempt: int) -> dict[str, Any]:
    """The one that was written, else one of what was left behind."""
    report = read_report(here, attempt)
    if report is None:
        report = left_behind(here, attempt, plan)
        if here.attempt(attempt).exists():
            publish(here, attempt, plan, report)
    return report


def _say(here: RunDir, plan: Plan, report: dict[str, Any]) -> int:
    """The table, the verdict, the directory."""
    verdict = judge(report, plan)
    print(table(report, plan))
    for warning in verdict.warnings:
        print(f"note: {warning}")
    print(f"verdict: {verdict}", here, sep="\n", flush=True)
    attempt = here.newest_attempt()
    closing = {"state": "done" if verdict.fine else "failed", "attempt": attempt, "name": plan.name, "id": plan.id, "error": str(verdict)}
    with contextlib.suppress(LaunchError):
        write_atomic(here.summary, json.dumps(closing, indent=2) + "\n")
    if verdict.fine:
        return 0
    left_out = ",".join(sorted(verdict.bad))
    hint = f"; leave them out with cluster.exclude={left_out}" if verdict.bad and report["nodes"] != sorted(verdict.bad) else ""
    log = "" if attempt is None else f" (report: {here.attempt(attempt)}/doctor.json)"
    raise ClusterError(f"{verdict}{hint}{log}")
