"""The SLURM in a box of slurm/devcluster, for tests: `DevCluster().up()`, then jobs, and everything that may happen to them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from helpers import REPO

_SCRIPT = REPO / "slurm" / "devcluster" / "cluster"
_SLURM = ("SLURM_", "SBATCH_", "SRUN_")


def why_not(accounting: bool = False) -> str | None:
    """Why no cluster can be started here; None if one can."""
    if os.geteuid() != 0:
        return "a SLURM in a box needs root"
    needed = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge", "ip": "iproute2", "nsenter": "util-linux"}
    if accounting:
        needed |= {"mariadbd": "mariadb-server", "slurmdbd": "slurmdbd slurm-wlm-mysql-plugin"}
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if missing := {package for program, package in needed.items() if not shutil.which(program, path=path)}:
        return f"not installed: apt-get install {' '.join(sorted(missing))}"
    if subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True, check=False).returncode:
        return "this machine allows no network namespaces"
    return None


class DevCluster:
    """Every method but `up` and `down` needs a cluster that is up, and raises AssertionError with what the command said."""

    def __init__(self) -> None:
        exported = self._call("env").stdout.strip()
        self.conf = Path(exported.partition("SLURM_CONF=")[2])
        self.env = {"SLURM_CONF": str(self.conf)}
        """What a process needs to speak to this cluster."""
        self.jobs: list[str] = []

    def is_up(self) -> bool:
        return self._call("status", check=False).returncode == 0

    def up(self, *words: str) -> str:
        return self._call("up", *words).stdout

    def down(self) -> None:
        self._call("down")

    def kill(self, node: str) -> None:
        self._call("kill", node)

    def cut(self, node: str) -> None:
        self._call("cut", node)

    def heal(self, node: str) -> None:
        self._call("heal", node)

    def controller(self, what: str) -> None:
        self._call("controller", what)

    def hide(self, node: str, command: str) -> None:
        self._call("hide", node, command)

    def show(self, node: str, command: str) -> None:
        self._call("show", node, command)

    def hosts(self, kind: str) -> None:
        self._call("hosts", kind)

    def set(self, *settings: str) -> None:
        """`set("KillWait=30", "batch.MaxTime=5")`; `set()` puts every default back."""
        self._call("set", *settings)

    def exec(self, node: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._call("exec", node, "--", *argv, check=check)

    def start(self, node: str, *argv: str) -> subprocess.Popen[str]:
        """The same, not waited for; its stdin and stdout are pipes."""
        words = [_SCRIPT, "exec", node, "--", *argv]
        return subprocess.Popen(words, env=_clean(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def slurm(self, *argv: str | Path, cwd: Path | None = None) -> str:
        """The stdout of sbatch, squeue, scontrol, … on the head node."""
        env = {**_clean(), **self.env}
        done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
        assert done.returncode == 0, f"{' '.join(str(word) for word in argv)}: {done.stderr}"
        return done.stdout

    def sbatch(self, cwd: Path, *words: str | Path) -> str:
        """The id of a job that works and writes in `cwd`."""
        job = self.slurm("sbatch", "--parsable", *words, cwd=cwd).strip()
        self.jobs.append(job)
        return job

    def squeue(self, job: str) -> str:
        """PENDING, RUNNING, COMPLETED, …; of an array the states that occur, in alphabetical order. Empty for a job that is forgotten."""
        try:
            lines = self.slurm("squeue", "--noheader", "--states=all", "--array", f"--jobs={job}", "--format=%T").split()
        except AssertionError as error:
            if "Invalid job id" not in str(error):
                raise
            return ""
        return " ".join(sorted(set(lines)))

    def wait_for_state(self, job: str, *states: str, seconds: float = 30) -> str:
        deadline = time.monotonic() + seconds
        while (state := self.squeue(job)) not in states:
            if time.monotonic() > deadline:
                raise AssertionError(f"job {job} is {state or 'forgotten'} after {seconds:g} s, not {' or '.join(states)}")
            time.sleep(0.1)
        return state

    def node_state(self, node: str) -> str:
        """idle, mixed, down*, …"""
        return self.slurm("sinfo", "--noheader", "--Node", f"--nodes={node}", "--partition=batch", "--format=%T").strip()

    def wait_for_node(self, node: str, *states: str, seconds: float = 30) -> str:
        deadline = time.monotonic() + seconds
        while (state := self.node_state(node)) not in states:
            if time.monotonic() > deadline:
                raise AssertionError(f"{node} is {state} after {seconds:g} s, not {' or '.join(states)}")
            time.sleep(0.1)
        return state

    def detail(self, job: str, field: str) -> str:
        """One field of `scontrol show job`: Restarts, Reason, NodeList, …"""
        found = re.search(rf"(?:^|\s){field}=(\S*)", self.slurm("scontrol", "show", "job", job))
        assert found, f"scontrol shows no {field} of job {job}"
        return found[1]

    def jobs_below(self, folder: Path) -> list[str]:
        """The jobs that work in that directory or below it and have not ended."""
        lines = self.slurm("squeue", "--noheader", "--format=%i|%Z").split("\n")
        found = [line.partition("|") for line in lines]
        return [job for job, _, place in found if place and Path(place).is_relative_to(folder)]

    def cancel(self, *jobs: str) -> None:
        """Ends these jobs (all that `sbatch` started, if none is named), and waits until no node has a process of theirs."""
        if jobs := jobs or tuple(self.jobs):
            self.slurm("scancel", "--quiet", *jobs)
            deadline = time.monotonic() + 30
            while {"RUNNING", "COMPLETING", "PENDING"} & {state for job in jobs for state in self.squeue(job).split()}:
                if time.monotonic() > deadline:
                    raise AssertionError(f"jobs that scancel does not end: {self.slurm('squeue')}")
                time.sleep(0.1)
        self.jobs = [job for job in self.jobs if job not in jobs]

    def _call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [_SCRIPT, *words], env=_clean(), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=100, check=False
        )
        assert done.returncode == 0 or not check, f"cluster {' '.join(words)}: {done.stderr}"
        return done


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_SLURM)}
