"""`doctor`: examine the machines that a command would train on, and say which of them are bad. Nothing is trained.

The command is the one that would train; it is composed and frozen as always, into runs_dir/doctor/<id>, and its processes start as those
of a training do, but for the module they run: launcher/doctor/examine/__main__.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from launcher.clusters import queues, submit
from launcher.clusters.slurm import Slurm, batch, scheduler
from launcher.compose import check
from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, freeze, resolve
from launcher.config import targets
from launcher.doctor.findings import ALONE, left_behind, publish, read_report, report_file
from launcher.doctor.judge import judge
from launcher.doctor.table import table
from launcher.errors import ClusterError, ConfigError, Interrupted, LaunchError
from launcher.plan import Plan
from launcher.rundir import rundir
from launcher.rundir.rundir import RunDir, write_atomic
from launcher.verdict import standing

NAME = "doctor"
SECONDS = 300.0
"""From the start of its processes to the report, at most."""
QUEUE_SECONDS = 1800.0
"""In the queue."""
GRACE_SECONDS = 15.0
"""From the report to the end of the last process; what hangs then is killed with the job."""
LIMIT = "10:00"
"""Of the job, so that it fits between others."""
ENDED_BY_OTHERS = ("CANCELLED", "PREEMPTED", "TIMEOUT", "DEADLINE")
POLL_SECONDS = 0.2
ASK_EVERY_SECONDS = 3.0


def doctor(words: list[str]) -> int:
    """Raises ClusterError (exit code 4) that names the bad nodes, or says why there is no report; Interrupted after Ctrl-C."""
    if "-m" in words or "--multirun" in words:
        raise ConfigError("doctor examines what one run would get; leave out --multirun")
    found: list[Frozen] = []
    compose(words, lambda config, overrides: found.append(_frozen(config, overrides)))
    if not found:
        return 0  # --cfg, --info and the like: Hydra has answered
    frozen = found[0]
    start = batch.check(frozen.cluster, frozen) if isinstance(frozen.cluster, Slurm) else ""
    here = _directory(frozen)
    report = _on_slurm(here, frozen.cluster, start) if isinstance(frozen.cluster, Slurm) else _here(here, frozen)
    return _say(here, frozen.plan, report)


def _frozen(config: DictConfig, overrides: list[str]) -> Frozen:
    """The command's own plan, with the examination instead of the training."""
    values = resolve(config)
    check.check_keys(values)
    check.check_values(values)
    targets.check_trust(values["trust"])
    targets.check(values, values["trust"])
    cluster = targets.build(values["cluster"])
    changes: dict[str, Any] = {"name": NAME, "train.batch_size": cluster.world().size * values["train"]["accumulate"]}
    if isinstance(cluster, Slurm):
        changes |= {"cluster.time": LIMIT, "cluster.warning": "auto", "cluster.requeue": False, "cluster.doctor": False}
    with open_dict(config):
        for key, value in {**changes, "cluster.max_restarts": 0}.items():
            OmegaConf.update(config, key, value)
    frozen = freeze(config, overrides)
    plan = dataclasses.replace(frozen.plan, env=(*frozen.plan.env, (ALONE, "alone")))
    script = frozen.cluster.render(plan)
    if script.count(" launcher.train.worker ") != 1:
        raise ConfigError("runs_dir: the name `launcher.train.worker` in a path is not for the doctor; choose another directory")
    return dataclasses.replace(frozen, plan=plan, script=script.replace(" launcher.train.worker ", " launcher.doctor.examine "))


def _directory(frozen: Frozen) -> RunDir:
    try:
        here = rundir.create(Path(frozen.plan.run_dir))
    except FileExistsError:
        raise ConfigError(f"id={frozen.plan.id} is an examination already; choose another id=…") from None
    if isinstance(frozen.cluster, Slurm):
        batch.copy_code(frozen, frozen.cluster, here)
    here.freeze(frozen.plan, frozen.config, frozen.script)
    here.log_event("submitted", overrides=list(frozen.plan.overrides), version=frozen.plan.version, code_hash=frozen.plan.code_hash)
    return here


def _here(here: RunDir, frozen: Frozen) -> dict[str, Any]:
    """Examine this machine and wait for the report."""
    with _ending():
        process = submit.start(frozen.cluster, frozen.plan)
        try:
            process.wait(timeout=SECONDS)
        except KeyboardInterrupt:
            raise Interrupted("stopped before the examination was over") from None
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()  # its processes die with it
            process.wait()
    attempt = here.attempt_of(process.pid)
    if attempt is None:
        raise ClusterError(f"{here.script} ended with status {process.returncode} before its first process; run it by hand to see why")
    return _report(here, frozen.plan, attempt)


def _on_slurm(here: RunDir, cluster: Slurm, start: str) -> dict[str, Any]:
    """Submit, wait in the queue and for the report. However this ends, no job stays behind."""
    over = False
    with _ending():
        try:
            batch.queue(here, cluster, start)
            print("waiting for the report (Ctrl-C cancels the job)", file=sys.stderr, flush=True)
            report = _wait(here)
            over = True
        except KeyboardInterrupt:
            raise Interrupted("stopped before the examination was over; its job is cancelled") from None
        finally:
            if not over:
                _cancel(here)
    return report


def _wait(here: RunDir) -> dict[str, Any]:
    """Until the batch shell has written its last word, or the job is gone, or the report is there and a process hangs.

    Raises ClusterError where the job does not start, or is ended by others.
    """
    plan = here.read_plan()
    limit = _Limit(QUEUE_SECONDS)
    question = 0.0
    while not (here.attempt(0) / "ended").exists():
        if here.attempt(0).exists():
            limit.lower("run", SECONDS)
        if report_file(here, 0).exists():
            limit.lower("report", GRACE_SECONDS)
        if limit.over:
            if not limit.lowered:
                raise ClusterError(f"the job did not start within {QUEUE_SECONDS / 60:.0f} min{_waits_for(here)}; it is cancelled")
            _cancel(here)
            break
        if time.monotonic() > question:
            question = time.monotonic() + ASK_EVERY_SECONDS
            if _is_gone(here):
                break
        time.sleep(POLL_SECONDS)
    return _report(here, plan, 0)


class _Limit:
    """Until when to wait: shorter, once, for each thing that has come."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.lowered: set[str] = set()

    def lower(self, what: str, seconds: float) -> None:
        if what not in self.lowered:
            self.lowered.add(what)
            self._until = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() > self._until


def _is_gone(here: RunDir) -> bool:
    """Raises ClusterError where the scheduler ended the job: what its processes left then says nothing about the nodes."""
    try:
        queue = queues.ask([here])
        job = queue.jobs.get(standing.job_ids(here)[-1])
    except ClusterError:
        return False
    if job is not None and job.state in ENDED_BY_OTHERS:
        raise ClusterError(f"job {job.id} was ended before the examination was over: {job.state.lower()}")
    return queue.answers_for(here) and (job is None or not job.active)


def _report(here: RunDir, plan: Plan, attempt: int) -> dict[str, Any]:
    """The one that was written, else one of what was left behind."""
    report = read_report(here, attempt)
    if report is None:
        report = left_behind(here, attempt, plan)
        if here.attempt(attempt).exists():
            publish(here, attempt, plan, report)
    return report


def _waits_for(here: RunDir) -> str:
    with contextlib.suppress(ClusterError):
        job = batch.active_job(here)
        return f" ({job.reason})" if job is not None else ""
    return ""


def _cancel(here: RunDir) -> None:
    """Also where the submission itself was interrupted: the queue knows the job by its name."""
    with contextlib.suppress(ClusterError):
        job = batch.active_job(here)
        if job is not None:
            here.log_event("cancelled", job=job.id)
            scheduler.cancel([job])


@contextlib.contextmanager
def _ending() -> Generator[None]:
    """SIGTERM and SIGHUP mean what Ctrl-C means: nothing may stay behind."""

    def stop(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    wanted = (signal.SIGTERM, signal.SIGHUP)
    saved = {number: signal.signal(number, stop) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


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
