"""A third cluster: a scheduler that starts jobs from a directory. One file and one yaml; nothing of the launcher knows of it.

    $TOY_SPOOL/12.job      what `submit` puts there: script and log
    $TOY_SPOOL/12.state    what the scheduler makes of it
    $TOY_SPOOL/12.cancel   what `cancel` puts there

`python -m toyproject.spool SPOOL SLOTS` is the scheduler: the oldest job first, so many at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from launcher.clusters.batch import Batch
from launcher.clusters.script import job_on_one_node
from launcher.errors import ClusterError, ConfigError, NoAnswer, NoScheduler
from launcher.plan import Plan, World
from launcher.rundir import lock
from launcher.rundir.rundir import RunDir
from launcher.verdict import jobs as phases
from launcher.verdict import standing
from launcher.verdict.jobs import Job
from launcher.verdict.standing import Queue

PHASES = {"PENDING": phases.QUEUED, "RUNNING": phases.RUNNING}
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Spool(Batch):
    """Jobs on one machine, one after the other."""

    processes_per_node: int = 1
    requeue: bool = False

    asked: ClassVar[str] = "the spool"

    def world(self) -> World:
        if self.processes_per_node < 1:
            raise ConfigError(f"cluster.processes_per_node={self.processes_per_node} cannot be; type a whole number from 1")
        return World(1, self.processes_per_node, "cpu")

    def threads(self, world: World) -> int:
        return 1

    def render(self, plan: Plan) -> str:
        return job_on_one_node(plan, job="TOY_JOB")

    def check(self, frozen: Any) -> str:
        place()
        return "when its turn comes"

    def submit(self, here: RunDir) -> str:
        text = json.dumps({"script": str(here.script), "log": str(here.log)})
        for number in range(1, 100_000):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(place() / f"{number}.taken", os.O_CREAT | os.O_EXCL))
                _put(place() / f"{number}.job", text)
                return str(number)
        raise ClusterError("the spool is full")

    @staticmethod
    def jobs(runs: Sequence[RunDir]) -> Queue:
        try:
            spool = place()
        except NoScheduler as error:
            return Queue({}, {run.path: str(error) for run in runs})
        found = {run.path: _job(spool, standing.job_ids(run)[-1]) for run in runs}
        return Queue({path: job for path, job in found.items() if job is not None})

    @staticmethod
    def cancel(jobs: Sequence[Job]) -> None:
        for job in jobs:
            (place() / f"{job.id}.cancel").touch()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any((now := _job(place(), job.id)) is not None and now.active for job in jobs):
            if time.monotonic() > deadline:
                raise NoAnswer("the scheduler of the spool does not answer")
            time.sleep(0.05)

    @staticmethod
    def waits(job: Job, run: str) -> tuple[str, str]:
        if job.reason == "Closed":
            return "nobody starts jobs from the spool", f"{sys.executable} -m toyproject.spool {place()} 1"
        return "other jobs come first", "nothing: it starts by itself"


def place() -> Path:
    """Raises NoScheduler."""
    spool = Path(os.environ.get("TOY_SPOOL") or "/nowhere")
    if not spool.is_dir():
        raise NoScheduler(f"TOY_SPOOL={spool} is no directory; type this where the spool is, or cluster=local to train on this machine")
    return spool


def _job(spool: Path, number: str) -> Job | None:
    if not (spool / f"{number}.job").exists():
        return None
    known = {"state": "PENDING"}
    with contextlib.suppress(FileNotFoundError):
        known = json.loads((spool / f"{number}.state").read_text())
    reason = ("Turn" if lock.is_held(spool / "scheduler.lock") else "Closed") if known["state"] == "PENDING" else "None"
    submitted = time.strftime("%H:%M:%S", time.localtime((spool / f"{number}.job").stat().st_mtime))
    state = known["state"]
    return Job(number, state, PHASES.get(state, phases.OVER), reason, "here", submitted=submitted, elapsed="a while")


def _put(path: Path, text: str) -> None:
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


# ---------------------------------------------------------------- the scheduler


class Scheduler:
    def __init__(self, spool: Path, slots: int) -> None:
        self.spool, self.slots = spool, slots
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def turn(self) -> None:
        for number in list(self.running):
            if (self.spool / f"{number}.cancel").exists():
                self.end(number, "CANCELLED")
            elif (status := self.running[number].poll()) is not None:
                self.end(number, "FAILED" if status else "COMPLETED")
        waiting = (number for number in sorted(int(path.stem) for path in self.spool.glob("*.job")) if not self.state(number).exists())
        for number in waiting:
            if (self.spool / f"{number}.cancel").exists():
                _put(self.state(number), json.dumps({"state": "CANCELLED"}))
            elif len(self.running) < self.slots:
                self.begin(number)

    def state(self, number: int) -> Path:
        return self.spool / f"{number}.state"

    def begin(self, number: int) -> None:
        job = json.loads((self.spool / f"{number}.job").read_text())
        with Path(job["log"]).open("ab") as log:
            environment = {**os.environ, "TOY_JOB": str(number)}
            started = subprocess.Popen(["bash", job["script"]], stdout=log, stderr=log, env=environment, start_new_session=True)
        self.running[number] = started
        _put(self.state(number), json.dumps({"state": "RUNNING"}))

    def end(self, number: int, state: str) -> None:
        """All that is left of a job goes with it."""
        process = self.running.pop(number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _put(self.state(number), json.dumps({"state": state}))


def main(argv: list[str]) -> None:
    scheduler = Scheduler(Path(argv[1]), int(argv[2]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lock.hold(scheduler.spool / "scheduler.lock", "the scheduler", 1.0)
    try:
        while True:
            scheduler.turn()
            time.sleep(0.05)
    finally:
        for number in list(scheduler.running):
            scheduler.end(number, "FAILED")


if __name__ == "__main__":
    main(sys.argv)
