"""Batch jobs on SLURM: the options, and a run's whole life there. What a job is, script.py says; the scheduler is asked by scheduler.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from launcher.clusters.batch import Batch
from launcher.clusters.env import check_env
from launcher.clusters.protocol import Account, Part
from launcher.clusters.slurm.env import SLURM
from launcher.clusters.slurm.values import check_containers, passed_on, seconds_of
from launcher.clusters.texts import check_text, check_whole
from launcher.devices import CPU, CUDA, XPU, check_trusted
from launcher.errors import ConfigError
from launcher.plan import Plan, World
from launcher.verdict.standing import Queue

if TYPE_CHECKING:
    from launcher.clusters.slurm.states import SlurmJob
    from launcher.compose.freeze import Frozen
    from launcher.rundir.rundir import RunDir
    from launcher.rundir.sweep import Sweep
    from launcher.verdict.jobs import Job
    from launcher.verdict.signatures import Words

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+@-]*")
_WORDS = re.compile(rf"{_WORD.pattern}(,{_WORD.pattern})*")
_LIST = re.compile(r"[A-Za-z0-9(\[][A-Za-z0-9_.:,&|*()\[\]+@-]*")
_LONGEST_WARNING = 65_535
"""Seconds; SLURM keeps them in 16 bits."""


@dataclass(frozen=True)
class Slurm(Batch):
    """Nodes of a cluster, and how this site wants to be asked for them."""

    nodes: int | str = 1
    """auto: one; of an allocation all that it has."""
    processes_per_node: int = 1
    """One per GPU; on `device=cpu` as many as the node shall run."""
    device: str = CUDA
    """cuda | xpu | cpu. The compute nodes cannot be looked at from here, so there is no auto."""
    trusted_devices: Sequence[str] = ()
    """Names of the devices that may compute (* and ? stand for other signs), or UUIDs, or how those begin; empty: all. A worker on any
    other is refused."""
    cpus_per_process: int = 4
    """Its threads; the job asks for processes_per_node times as many on each node."""
    time: str = "4:00:00"
    """Limit as sbatch reads it: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS. A job that reaches it saves, requeues and goes on."""
    warning: str | int = "auto"
    """Seconds before the limit at which the scheduler warns. auto: 5 % of the limit, 60 to 300 s; the run itself stops as early as its
    measured saves need."""
    partition: str | None = None
    """Or several, with commas between: the job goes to the first that has room."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    """Nodes not to use: node3,node[7-9]."""
    memory: str | None = None
    """Of each node: 64G; 0 is all of it; null leaves it to the partition."""
    gpu_type: str | None = None
    """As the site names it in its GRES: h100."""
    gpu_request: str = "gpus-per-node"
    """gpus-per-node | gres: what this site's SLURM is asked with; gres also works where select/cons_tres is missing."""
    requeue: bool = True
    """Go on by itself after preemption, a time limit or the loss of a node."""
    max_restarts: int = 0
    """How often torchrun starts a node's processes again within one attempt."""
    interface: str | None = None
    """Network interface between nodes, where the route to the first node is not the right one: ib0."""
    env: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    """Exported in the job: NCCL_IB_HCA and the like."""
    env_force: list[str] = field(default_factory=list[str])
    """Names in `env` that can change which code runs (PATH, LD_LIBRARY_PATH, PYTHONPATH), and shall."""
    prelude: str | None = None
    """A shell file that the job reads before anything else (`module load …`). It is copied at submit, with what it names beside itself."""
    prelude_strict: bool = False
    """A command of the prelude that fails ends the job. Otherwise training begins, and `why` names the command. One that does not come to
    its end (exit, exec, set -e) ends the job in any case."""
    container: str | None = None
    """pyxis | apptainer"""
    image: str | None = None
    mounts: list[str] = field(default_factory=list[str])
    """host:container pairs beside the run, the code and the working directory."""
    container_python: str = "python3"
    sbatch: dict[str, str | bool | None] = field(default_factory=dict[str, "str | bool | None"])
    """Any other option of sbatch: true is a bare flag, null is absent."""
    srun: dict[str, str | bool | None] = field(default_factory=dict[str, "str | bool | None"])
    site_options: list[str] = field(default_factory=list[str])
    """Options that a plugin of this site adds to sbatch and srun."""
    throttle: int | None = None
    """How many members of a sweep may run at once."""
    shared_filesystem: bool = False
    """You vouch that the compute nodes see runs_dir, though it looks like a directory of this machine alone."""
    doctor: bool = False
    """Examine the nodes before training; leave a bad one out and requeue once."""
    inside: bool = False
    """Submit nothing, and run on the nodes of the allocation that this is typed in (launcher/clusters/slurm/inside.py)."""

    asked: ClassVar[str] = "squeue"
    told: ClassVar[Mapping[str, str]] = {"number": "SLURM_NODEID", "name": "SLURMD_NODENAME", "nodes": "SLURM_JOB_NODELIST"}
    drills: ClassVar[tuple[str, ...]] = ("preempt", "timeout", "nodefail", "crash")

    def meant(self) -> str:
        return "launcher.clusters.slurm.inside.Inside" if self.inside else ""

    @property
    def count(self) -> int:
        """Of nodes, once they have been checked."""
        return 1 if self.nodes == "auto" else int(self.nodes)

    def world(self) -> World:
        """Check every option. Raises ConfigError that names the key and what to type."""
        if self.device not in (CUDA, XPU, CPU):
            raise ConfigError(
                f"cluster.device={self.device} cannot be on a cluster one does not see from here; type {CUDA}, {XPU} or {CPU}"
            )
        check_trusted(self.trusted_devices)
        check_whole("nodes", 1 if self.nodes == "auto" else self.nodes, 1, "auto or a whole number from 1")
        for key in ("processes_per_node", "cpus_per_process"):
            check_whole(key, getattr(self, key), 1)
        check_whole("max_restarts", self.max_restarts, 0)
        if self.throttle is not None:
            check_whole("throttle", self.throttle, 1)
        if self.warning != "auto":
            check_whole("warning", self.warning, 1, "auto or a whole number of seconds from 1")
            if int(self.warning) >= self.seconds:
                raise ConfigError(f"cluster.warning={self.warning} is not before the limit cluster.time={self.time}; type auto")
            if int(self.warning) > _LONGEST_WARNING:
                raise ConfigError(f"cluster.warning={self.warning} is more than SLURM can count; type at most {_LONGEST_WARNING}, or auto")
        for key in ("account", "qos", "gpu_type", "interface"):
            _match(key, getattr(self, key), _WORD, "one word of letters, digits and _.:+@-")
        _match("partition", self.partition, _WORDS, "one word of letters, digits and _.:+@-, or several with commas between")
        for key in ("constraint", "exclude"):
            _match(key, getattr(self, key), _LIST, "names and the signs ,&|*()[] between them, without spaces or quotes")
        _match("memory", self.memory, re.compile(r"0|[1-9][0-9]*[KMGT]"), "a number and its unit, such as 64G, or 0 for all of a node")
        if self.gpu_request not in ("gpus-per-node", "gres"):
            raise ConfigError(f"cluster.gpu_request={self.gpu_request} cannot be; type gpus-per-node or gres")
        if self.prelude is not None:
            check_text("prelude", self.prelude)
        check_containers(self.container, self.image, self.mounts, self.container_python)
        check_env(self.env, self.env_force, SLURM)
        given = passed_on("sbatch", self.sbatch, self.site_options)
        if self.gpu_request == "gres" and "gres" in given:
            raise ConfigError("cluster.sbatch.gres would take the place of the GPUs; type cluster.gpu_request=gpus-per-node beside it")
        passed_on("srun", self.srun, self.site_options)
        return World(self.count, self.processes_per_node, self.device)

    def threads(self, world: World) -> int:
        return self.cpus_per_process

    @property
    def seconds(self) -> int:
        """The time limit. Raises ConfigError."""
        return seconds_of(self.time)

    @property
    def lead(self) -> int:
        """Seconds before the limit at which the batch shell is warned; sent up to 60 s early by SLURM itself."""
        if self.warning != "auto":
            return int(self.warning)
        return min(max(60, self.seconds // 20), 300, self.seconds // 3)

    def render(self, plan: Plan) -> str:
        from launcher.clusters.slurm.script import job_script

        return job_script(self, plan)

    def submit_argv(self, plan: Plan) -> list[str]:
        return ["sbatch", "--parsable", f"--chdir={plan.run_dir}", f"{plan.run_dir}/job.sh"]

    # ------------------------------------------------ before

    def check(self, frozen: Frozen) -> str:
        """A controller that does not answer is no reason to refuse here: the run directory is kept then, for another try."""
        from launcher.clusters.slurm import batch

        return batch.check(self, frozen)

    def asks(self, plan: Plan) -> tuple[str, ...]:
        from launcher.clusters.slurm.script import directives

        return tuple(directives(self, plan, name=""))

    def prepare(self, frozen: Frozen, here: RunDir) -> None:
        super().prepare(frozen, here)
        if self.prelude is not None:
            from launcher.clusters.slurm import prelude_files

            prelude_files.copy(Path(self.prelude), here.prelude)

    # ------------------------------------------------ begun, known, ended

    def submit(self, here: RunDir) -> str:
        from launcher.clusters.slurm import batch

        return batch.submit(self, here)

    def array(self, here: Sweep, parts: Sequence[Part]) -> list[str]:
        from launcher.clusters.slurm import array

        return array.queue(here, parts, self)

    def examination(self) -> Mapping[str, Any]:
        """Its limit is short, so that it fits between others."""
        return {"time": "10:00", "warning": "auto", "requeue": False, "doctor": False, "max_restarts": 0}

    def job_of(self, here: RunDir) -> SlurmJob | None:
        from launcher.clusters.slurm import batch

        return batch.job_of(self, here)

    @staticmethod
    def jobs(runs: Sequence[RunDir]) -> Queue:
        from launcher.clusters.slurm import asked

        return asked.jobs(runs)

    @staticmethod
    def cancel(jobs: Sequence[Job]) -> None:
        from launcher.clusters.slurm import scheduler

        scheduler.cancel(jobs)

    # ------------------------------------------------ explained, drilled

    @staticmethod
    def waits(job: Job, run: str) -> tuple[str, str]:
        from launcher.clusters.slurm import words

        return words.waits(job, run)

    @staticmethod
    def accounted(key: str) -> Account | None:
        from launcher.clusters.slurm import scheduler

        return scheduler.accounted(key)

    @staticmethod
    def estimate(here: RunDir) -> str:
        from launcher.clusters.slurm import batch

        return batch.estimate(Slurm(), here)

    @staticmethod
    def words() -> Words:
        from launcher.clusters.slurm.words import WORDS

        return WORDS

    @staticmethod
    def strike(kind: str, here: RunDir) -> None:
        from launcher.clusters.slurm import drilled

        drilled.strike(kind, here)


def _match(key: str, value: object, pattern: re.Pattern[str], wanted: str) -> None:
    if value is not None and not pattern.fullmatch(str(value)):
        raise ConfigError(f"cluster.{key}={value!r} cannot be; type {wanted}")
