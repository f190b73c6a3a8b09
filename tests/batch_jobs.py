"""Batch jobs of the toy project on the real SLURM of slurm/devcluster, for tests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from devcluster import DevCluster
from helpers import Launch
from processes import events, wait_for

from launcher.clusters.slurm.states import is_over

ON_SLURM = ("cluster=slurm", "cluster.device=cpu", "cluster.cpus_per_process=1", "cluster.shared_filesystem=true", "cluster.time=10:00")


class Batch:
    """`words` are those of `toy_words`; everything below runs with the cluster's SLURM_CONF."""

    def __init__(self, home: Path, cluster: DevCluster, launch: Launch, words: tuple[str, ...]) -> None:
        self.home = home
        self.cluster = cluster
        self.words = (*words, *ON_SLURM)
        self._launch = launch

    def __call__(self, *words: str, env: dict[str, str] | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """`python -m launcher *words`."""
        return self._launch(*words, env={**self.cluster.env, **(env or {})}, timeout=timeout)

    def submit(self, *words: str, env: dict[str, str] | None = None) -> Path:
        """Submit one run; its directory."""
        done = self(*self.words, *words, env=env)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.splitlines()[-1])

    def job(self, run: Path) -> str:
        return str(events(run, "queued")[-1]["job"])

    def state(self, run: Path) -> str:
        """The scheduler's word, empty where it no longer knows the job."""
        lines = self.cluster.slurm("squeue", "--noheader", "--states=all", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines).get(self.job(run), "")

    def wait_for_step(self, run: Path, step: int, attempt: int = 0, seconds: float = 120) -> None:
        """Until that attempt, or a later one, has come to that step."""

        def there() -> bool:
            started = events(run, "started")
            return bool(started) and started[-1]["attempt"] >= attempt and last_step(run) >= step

        wait_for(there, seconds, f"step {step} of attempt {attempt} in {run}")

    def wait_until_over(self, run: Path, seconds: float = 240) -> str:
        """Until the job has left the queue; its last state."""
        wait_for(lambda: not (state := self.state(run)) or is_over(state), seconds, f"the end of {run}")
        return self.state(run)

    def finish(self, run: Path, seconds: float = 240) -> dict:
        """Until the job is over, which must be with all steps done; the summary."""
        self.wait_until_over(run, seconds)
        log = (run / "job.log").read_text(errors="replace")[-3000:] if (run / "job.log").exists() else "no job.log"
        assert (run / "summary.json").exists(), log
        summary = json.loads((run / "summary.json").read_text())
        assert summary["state"] == "done", log
        return summary

    def processes(self) -> list[psutil.Process]:
        """Every process of these jobs, on whatever node."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if str(self.home) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def close(self) -> None:
        runs = [path.parent for path in (self.home / "runs").glob("*/*/events.jsonl")]
        ids = [str(event["job"]) for run in runs for event in events(run, "queued")]
        if ids:
            with contextlib.suppress(AssertionError):  # none of them may be left
                self.cluster.slurm("scancel", "--quiet", *ids)
        try:
            gone_within(self.processes, 20)
        finally:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()


def gone_within(processes: Callable[[], list[psutil.Process]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"left behind: {left}"


def last_step(run: Path) -> int:
    """Of metrics.jsonl, read from its end."""
    try:
        lines = (run / "metrics.jsonl").read_bytes()[-4000:].decode(errors="replace").splitlines()
    except OSError:
        return 0
    steps = [0]
    for line in lines:
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                steps.append(int(record.get("step", 0)))
    return max(steps)
