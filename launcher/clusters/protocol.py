"""A cluster: where processes start. `Cluster` is all that the launcher knows of one; a run's whole life there goes through it.

    planned    meant, world, threads, render    what it will be: pure, but for a look at this machine, or the nodes one has already, where
               those are the cluster
    before     check, prepare             what the scheduler says to it while nothing is written; what the job needs beside its script
    begun      stay, start, array, see_through, examine    stay with it, or hand it over; the members of a sweep; what is no training; an
               examination of the machines
    known      jobs, job_of               what has become of all these runs, in one question; whether this one is there already
    ended      cancel
    explained  waits, accounted, estimate, words    why it waits, how it ended, what the scheduler would say to it, what it says in logs
    drilled    drills, strike             what a bad night can do to it there

A cluster is a frozen dataclass of its options that inherits `Cluster`, or `Batch` (launcher/clusters/batch.py) where a scheduler starts the
jobs: those have what is true of most. What is asked of runs that are there already is asked of the class, by static methods: no option is
read from a run's directory for it, and which class it is stands there (launcher/clusters/kinds.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from launcher.errors import ClusterError

if TYPE_CHECKING:
    from launcher.compose.freeze import Frozen
    from launcher.plan import Plan, World
    from launcher.rundir.rundir import RunDir
    from launcher.rundir.sweep import Sweep
    from launcher.verdict.jobs import Job
    from launcher.verdict.signatures import Words
    from launcher.verdict.standing import Queue


class Part(NamedTuple):
    """A member of a sweep that waits to be submitted."""

    run: RunDir
    plan: Plan
    cluster: Cluster


class Account(NamedTuple):
    """How a job ended that its scheduler no longer has in its queue."""

    state: str
    is_over: bool
    shown: str
    """The line that says so, and who says it."""


class Fewer(Exception):
    """The run is to go on in a smaller world: `words` are those that `resume` would be given."""

    def __init__(self, why: str, words: Sequence[str]) -> None:
        super().__init__(why)
        self.words = [*words]


class Cluster(Protocol):
    """Where processes start, and this run's options there."""

    attached: ClassVar[bool]
    """Whether the launcher stays with the run, which then runs the code that is here, or returns at once and leaves a copy of it."""
    asked: ClassVar[str] = "the queue"
    """Who says what has become of a job, by name."""
    told: ClassVar[Mapping[str, str]] = {}
    """By which variables the scheduler tells a process of a job the `number` of its node in the job, the node's `name` and the `nodes` of
    the job (`rack[1-3],login`). Frozen into the plan."""
    drills: ClassVar[tuple[str, ...]] = ()
    """What `strike` can do: preempt, timeout, nodefail, crash."""

    max_restarts: int
    """How often torchrun starts a node's processes again within one attempt."""
    requeue: bool
    """Whether another attempt follows by itself after what is not the run's fault."""
    trusted_devices: Sequence[str] = ()
    """Names and UUIDs of the devices that may compute (launcher/devices.py); empty: all."""

    # ------------------------------------------------ planned

    def meant(self) -> str:
        """The target of another class of cluster, where one of these options leads to that; empty: this one. Asked before all else."""
        return ""

    def world(self) -> World:
        """Check every option, resolve every `auto`. Raises ConfigError for what cannot be had."""
        ...

    def chose(self) -> str:
        """Why `world` has that device, in one line; empty where it was typed."""
        return ""

    def threads(self, world: World) -> int:
        """CPU threads for each process."""
        ...

    def render(self, plan: Plan) -> str:
        """The job script: a pure function of the options and the plan, in which ` launcher.train.worker ` stands once."""
        ...

    # ------------------------------------------------ before

    def check(self, frozen: Frozen) -> str:
        """Ask whatever can be asked before anything is written. Returns when the job would start, empty where it is at once.

        Raises ConfigError or ClusterError; NoScheduler where this is no machine of the cluster.
        """
        return ""

    def asks(self, plan: Plan) -> tuple[str, ...]:
        """What it asks the scheduler for: members of a sweep that ask for the same are checked once and given to `array` together."""
        return (repr(self),)

    def prepare(self, frozen: Frozen, here: RunDir) -> None:
        """Put beside the frozen inputs what else the job needs. Raises RunError."""

    # ------------------------------------------------ begun

    def stay(self, here: RunDir) -> contextlib.AbstractContextManager[None]:
        """While this launcher is at the run, `start` within: no other is, where it stays with it. A scheduler is asked first whether it has
        the run. Raises RunError."""
        return contextlib.nullcontext()

    def start(self, here: RunDir, when: str = "") -> dict[str, Any] | None:
        """Stay with the run until it ends and return its summary, or hand it over, say what to type next and return None. `when`: as
        `check` had it. Raises any LaunchError; NoAnswer where it is not known whether there is a job now; Fewer.
        """
        ...

    def array(self, here: Sweep, parts: Sequence[Part]) -> list[str]:
        """Hand over these members, which ask for the same. Returns the jobs' numbers. Raises ClusterError."""
        raise ClusterError("cluster: it takes one run after the other; type one value for each key")

    def see_through(self, here: RunDir) -> dict[str, Any]:
        """Where it stays with its runs: start what was frozen there, which trains nothing, show it and wait for its end. However that
        comes, no process stays behind. Returns its summary. Elsewhere `start` hands it over. Raises the error that a rank reported,
        Interrupted after Ctrl-C.
        """
        raise ClusterError("cluster: it does not stay with its runs")

    def examination(self) -> Mapping[str, Any]:
        """Options that differ where the machines are examined and nothing is trained."""
        return {}

    def examine(self, here: RunDir, when: str) -> int:
        """Run the examination that was frozen there to its end. Returns the attempt in which it was; however this ends, nothing of it
        stays behind. Raises ClusterError where it did not begin or was ended by others, Interrupted after Ctrl-C.
        """
        ...

    # ------------------------------------------------ known, ended

    def job_of(self, here: RunDir) -> Job | None:
        """The job that this run has in the queue, be its number known or not; None where it has none. Raises ClusterError."""
        return None

    @staticmethod
    def jobs(runs: Sequence[RunDir]) -> Queue:
        """What has become of the newest jobs (`standing.job_ids(run)[-1]`) of these runs: one question for all. Who does not answer is
        silent in it. Raises nothing.
        """
        from launcher.verdict.standing import Queue  # planning a run asks nobody

        return Queue()

    @staticmethod
    def cancel(jobs: Sequence[Job]) -> None:
        """Raises ClusterError."""
        raise ClusterError("cluster: it has no jobs; nothing was cancelled")

    # ------------------------------------------------ explained

    @staticmethod
    def waits(job: Job, run: str) -> tuple[str, str]:
        """Why a job does not run, and what to type; `run` as a shell takes it."""
        return "the scheduler has a reason of its own", "nothing: it starts by itself"

    @staticmethod
    def accounted(key: str) -> Account | None:
        """Of a job that the queue no longer knows; None where nobody keeps accounts."""
        return None

    @staticmethod
    def estimate(here: RunDir) -> str:
        """When a run that was never handed over would start. Raises ClusterError with what the scheduler has against it."""
        return "once it is submitted"

    @staticmethod
    def words() -> Words:
        """What it says in logs and refusals."""
        from launcher.verdict.signatures import NONE  # a table of runs needs no signature

        return NONE

    # ------------------------------------------------ drilled

    @staticmethod
    def strike(kind: str, here: RunDir) -> None:
        """Do to the job of this run what one of `drills` is called after. Raises ClusterError."""
        raise ClusterError(f"drill {kind}: not on this cluster")
