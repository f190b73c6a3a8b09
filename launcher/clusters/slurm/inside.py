"""`cluster=slurm cluster.inside=true`: a run on the nodes of the allocation that it is typed in, by srun, at once and attended.

The allocation is the user's. Nothing of it is written into the run as if it were the run's own job: the ledger has no job, so `status` does
not show its state as the run's, and `cancel` asks the run to stop and never cancels it.
"""

from __future__ import annotations

import functools
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.clusters.attended import Attended
from launcher.clusters.protocol import Account, Cluster, Part
from launcher.clusters.slurm import Slurm, allocation
from launcher.clusters.slurm.allocation import Allocation
from launcher.errors import ClusterError, ConfigError, LaunchError, NoScheduler, RankLost, Stopped
from launcher.plan import Plan, World
from launcher.verdict import evidence
from launcher.verdict.signatures import LOST_PEER
from launcher.verdict.standing import Queue

if TYPE_CHECKING:
    from launcher.compose.freeze import Frozen
    from launcher.rundir.rundir import RunDir
    from launcher.rundir.sweep import Sweep
    from launcher.verdict.jobs import Job

OF_THE_JOB = ("time", "warning", "partition", "account", "qos", "constraint", "exclude", "memory", "sbatch", "throttle", "doctor")
"""Options of a job, which the allocation was asked for with: they say nothing here. From a site's yaml they are meant for jobs; what was
typed is told of."""
_LOST = re.compile(
    r"NODE FAILURE|Node failure|Communication connection failure|nable to co(mmunicate|ntact)|Connection (refused|timed out)"
)
"""What srun says of a step one of whose nodes is gone."""
_TASK = re.compile(r"srun: error: \S+: tasks? \S+: (.+)")
"""The first of these is of the task that ended first; all others are ended for it."""
_OURS = re.compile(r"launcher: (?:refused: )?(?!attempt \d|warning: |in allocation |the step ended )(.+)")
_SRUN = re.compile(r"srun: error: (?!\S+: tasks? )(.+)")


@dataclass(frozen=True)
class Inside(Attended, Slurm):
    """The nodes of an allocation, or some of them; the options are those of a job (launcher/clusters/slurm/__init__.py)."""

    attached: ClassVar[bool] = True
    grace: ClassVar[float] = 15.0
    drills: ClassVar[tuple[str, ...]] = ()

    # ------------------------------------------------ planned

    def meant(self) -> str:
        return ""

    def world(self) -> World:
        """Raises ConfigError, or ClusterError where the allocation has not what is asked for."""
        if not self.inside:
            raise ConfigError("cluster.inside=false: this run is one of an allocation, and stays so; start a new run to submit a job")
        found = _found() if allocation.number() or self.nodes == "auto" else None
        asked = Slurm.world(replace(self, nodes=found.nodes) if found and self.nodes == "auto" else self)
        if found is not None and not found.is_over:  # how else: `start` will say so
            allocation.check(self, found, asked.nodes)
        return asked

    def render(self, plan: Plan) -> str:
        from launcher.clusters.slurm.inside_script import attended_script

        return attended_script(self, plan)

    # ------------------------------------------------ before

    def check(self, frozen: Frozen) -> str:
        from launcher.clusters.slurm import batch, prelude_files

        _ready()
        batch.check_shared(self, frozen.plan.run_dir)
        if self.prelude is not None:
            prelude_files.check(self.prelude)
        typed = [word.lstrip("+~").partition("=")[0].split(".")[:2] for word in frozen.plan.overrides]
        if told := sorted({key for group, *keys in typed if group == "cluster" for key in keys if key in OF_THE_JOB}):
            keys = ", ".join(f"cluster.{key}" for key in told)
            _warn(f"{keys}: not used inside an allocation, which was asked for with its own")
        return ""

    # ------------------------------------------------ begun, known, ended

    def start(self, here: RunDir, when: str = "") -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride] # of a job
        found = _ready()
        print(f"launcher: runs in {found}", file=sys.stderr)
        self._begin(here)
        return super().start(here, when)

    def see_through(self, here: RunDir) -> dict[str, Any]:
        _ready()
        self._begin(here)
        return super().see_through(here)

    def examine(self, here: RunDir, when: str) -> int:
        _ready()
        self._begin(here)
        attempt = super().examine(here, when)
        if not evidence.rank_logs(here, attempt):
            raise self.explained(here, attempt, ClusterError(f"the examination did not begin; see {here.log}"))
        return attempt

    def _begin(self, here: RunDir) -> None:
        if here.log.is_symlink():
            here.log.unlink()  # the script would write where it leads: it may be a copy of somebody else's run

    def explained(self, here: RunDir, attempt: int, error: LaunchError) -> LaunchError:
        """A step that could not begin, a node that was lost, an allocation that has ended: srun knows, or the controller."""
        lines = evidence.job_lines(here, attempt)
        lost = [line for line in lines if _LOST.search(line)]
        if lost:
            allocation.pause()
        if (state := _state()) != "RUNNING":
            over = f"allocation {allocation.number()} is {state.lower()}, and the run has ended with it"
            return Stopped(f"{over}; type salloc, and in its shell: python -m launcher resume {here}")
        why = _refusal(lines)
        if why and not evidence.rank_logs(here, attempt):
            here.forget_attempt(attempt)
            return ClusterError(f"{why}; then go on with: python -m launcher resume {here}")
        ended = next((line for line in lines if _TASK.search(line)), "")
        lost += [ended] if re.search(r": (Killed|Terminated)", ended) else []
        report = evidence.newest_report(here, attempt)
        known = isinstance(error, RankLost) or (report is not None and not LOST_PEER.search(report.message))
        return RankLost(f"{error}; {lost[0].strip()}") if lost and not known else error

    def array(self, here: Sweep, parts: Sequence[Part]) -> list[str]:
        return Cluster.array(self, here, parts)

    def submit(self, here: RunDir) -> str:
        raise ClusterError("cluster.inside=true: nothing is submitted inside an allocation")

    def job_of(self, here: RunDir) -> None:
        return None

    @staticmethod
    def jobs(runs: Sequence[RunDir]) -> Queue:
        return Queue()

    @staticmethod
    def cancel(jobs: Sequence[Job]) -> None:
        Cluster.cancel(jobs)

    @staticmethod
    def accounted(key: str) -> Account | None:
        return None

    @staticmethod
    def estimate(here: RunDir) -> str:
        return "at once, when it is resumed in an allocation"

    @staticmethod
    def strike(kind: str, here: RunDir) -> None:
        Cluster.strike(kind, here)


@functools.cache
def _found() -> Allocation:
    """Once for a command: what it has does not change while a run is planned."""
    return allocation.find()


def _ready() -> Allocation:
    """Raises ClusterError where no step could be started."""
    if shutil.which("srun") is None and allocation.number():
        raise NoScheduler("srun: not found; type this where the programs of SLURM are, or cluster=local to train on this machine")
    return allocation.running()


def _state() -> str:
    try:
        return "RUNNING" if (found := allocation.find()).state in allocation.RUNNING else found.state
    except ClusterError:  # nobody says that it is over
        return "RUNNING"


def _refusal(lines: Sequence[str]) -> str:
    """What of an attempt's lines says that it could not begin: what we say ourselves, else srun; empty where nothing does."""
    said = [found[1] for line in lines if (found := _SRUN.search(line))]
    words = next((found[1] for line in lines if (found := _OURS.search(line))), said[0] if said else "")
    if "busy" in words:
        words += " (other steps have its CPUs or GPUs); wait until they end, or type less of cluster.processes_per_node or cpus_per_process"
    return words and f"allocation {allocation.number()}: {words}"


@functools.cache
def _warn(text: str) -> None:
    print(f"launcher: warning: {text}", file=sys.stderr)
