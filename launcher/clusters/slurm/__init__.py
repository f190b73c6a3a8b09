"""A batch job on SLURM: one text per run, a pure function of the options and the plan.

`#SBATCH` lines come from checked values alone; what the job does afterwards is slurm.sh, copied in whole. One task per node: torchrun
starts that node's processes. Nothing a node knows better is decided here: launcher/node/__main__.py finds its address when it is there.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from launcher.clusters.script import LOOPBACK, NEXT_ATTEMPT, ONE_NODE, SAFE_PATH, SCRUB, TORCHRUN, command_option
from launcher.clusters.slurm import environment, prelude
from launcher.clusters.slurm.env import check_env
from launcher.clusters.slurm.values import check_containers, check_text, directive, limit_text, literal_path, passed_on, seconds_of
from launcher.errors import ConfigError
from launcher.plan import Plan, World
from launcher.shell import Raw, block, command, export, glued

BODY = Path(__file__).with_name("slurm.sh")

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+@-]*")
_WORDS = re.compile(rf"{_WORD.pattern}(,{_WORD.pattern})*")
_LIST = re.compile(r"[A-Za-z0-9(\[][A-Za-z0-9_.:,&|*()\[\]+@-]*")
_LONGEST_WARNING = 65_535
"""Seconds; SLURM keeps them in 16 bits."""


@dataclass(frozen=True)
class Slurm:
    """Nodes of a cluster, and how this site wants to be asked for them."""

    nodes: int = 1
    processes_per_node: int = 1
    """One per GPU; on `device=cpu` as many as the node shall run."""
    device: str = "cuda"
    """cuda | cpu. The compute nodes cannot be looked at from here, so there is no auto."""
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

    attached: ClassVar[bool] = False

    def world(self) -> World:
        """Check every option. Raises ConfigError that names the key and what to type."""
        if self.device not in ("cuda", "cpu"):
            raise ConfigError(f"cluster.device={self.device} cannot be on a cluster one does not see from here; type cuda or cpu")
        for key in ("nodes", "processes_per_node", "cpus_per_process"):
            _whole(key, getattr(self, key), 1)
        _whole("max_restarts", self.max_restarts, 0)
        if self.throttle is not None:
            _whole("throttle", self.throttle, 1)
        if self.warning != "auto":
            _whole("warning", self.warning, 1, "auto or a whole number of seconds from 1")
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
        check_env(self.env, self.env_force)
        given = passed_on("sbatch", self.sbatch, self.site_options)
        if self.gpu_request == "gres" and "gres" in given:
            raise ConfigError("cluster.sbatch.gres would take the place of the GPUs; type cluster.gpu_request=gpus-per-node beside it")
        passed_on("srun", self.srun, self.site_options)
        return World(self.nodes, self.processes_per_node, self.device)

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
        """The job script."""
        lines = [
            "#!/bin/bash",
            *self.directives(plan, output=literal_path(plan.run_dir, "job.log")),
            f"# {plan.name}/{plan.id}: {plan.world}. Rendered by launcher {plan.version}; what runs is this file.",
            "set -euo pipefail",
            command(["umask", plan.umask]),
            "",
            *SCRUB,
            *self._prelude(plan),
            "",
            *(LOOPBACK if self.nodes == 1 else ()),
            *environment.lines(self.env, (self.image, self.container_python, *self.mounts, *self.srun.values())),
            f"run={command([plan.run_dir])}",
            f"code={command([plan.project])}",
            f"python={command([plan.python if self.container is None else self.container_python])}",
            f"limit={self.seconds}",
            f"requeue={'yes' if self.requeue else 'no'}",
            "",
            export("PYTHONPATH", Raw('"$code${PYTHONPATH:+:$PYTHONPATH}"')),
            SAFE_PATH,
            export("OMP_NUM_THREADS", plan.threads),
            "# Since 22.05 srun no longer takes this from the job.",
            export("SRUN_CPUS_PER_TASK", self._cpus_per_node),
            "# torchrun gives its workers this long when one of them has failed; the others hang in a collective by then.",
            export("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 5),
            *([export("LAUNCHER_INTERFACE", self.interface)] if self.interface else []),
            *(export(name, value) for name, value in plan.env),
            "",
            'cd "$code" # where -m looks first',
            *NEXT_ATTEMPT,
            "",
            "step() {",
            "    " + block(self._srun(plan)).replace("\n", "\n    "),
            "}",
            *(["examine() {", "    " + block(self._examine(plan)).replace("\n", "\n    "), "}"] if self.doctor else []),
            "",
            BODY.read_text(encoding="utf-8").rstrip("\n"),
        ]
        return "\n".join(lines) + "\n"

    def _prelude(self, plan: Plan) -> list[str]:
        if self.prelude is None:
            return []
        copied = f"{plan.run_dir}/prelude/{Path(self.prelude).name}"
        return prelude.lines(copied, f"{plan.run_dir}/events.jsonl", self.prelude_strict)

    def render_array(self, plan: Plan, name: str, place: str, members: int) -> str:
        """The script of an array whose members are the runs that `place`/<index> lead to; `plan` is one of theirs."""
        indices = f"0-{members - 1}{f'%{self.throttle}' if self.throttle else ''}"
        literal = literal_path(place, "all.log")
        lines = [
            "#!/bin/bash",
            *self.directives(plan, name=name, array=indices, output="%a.log" if literal == "all.log" else literal),
            f"# {members} members of a sweep. Each is a run like any other, with a job.sh of its own.",
            f'member={command([place])}/"$SLURM_ARRAY_TASK_ID"',
            '[ -d "$member" ] || member=$(<"$member") # a text, where the file system has no links',
            'exec bash "$member/job.sh" >>"$member/job.log" 2>&1',
        ]
        return "\n".join(lines) + "\n"

    def directives(self, plan: Plan, *, name: str | None = None, array: str | None = None, output: str = "job.log") -> list[str]:
        """The `#SBATCH` lines. `output` is relative to `--chdir`, which sbatch gets as an argument."""
        options: dict[str, Any] = {
            "job-name": f"{plan.name}.{plan.id}" if name is None else name,
            "nodes": self.nodes,
            "ntasks-per-node": 1,
            "cpus-per-task": self._cpus_per_node,
            **self._gpus(),
            "mem": self.memory,
            "time": limit_text(self.seconds),
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "exclude": self.exclude,
            "signal": f"B:USR2@{self.lead}",
            "requeue" if self.requeue else "no-requeue": True,
            "array": array,
            "open-mode": "append",
            "output": output,
            **passed_on("sbatch", self.sbatch, self.site_options),
        }
        return [directive(key, value) for key, value in options.items() if value is not None]

    @property
    def _cpus_per_node(self) -> int:
        return self.cpus_per_process * self.processes_per_node

    def _gpus(self) -> dict[str, str]:
        """Per node: from 24.11 on, GPUs bound per task keep NCCL from peer-to-peer copies."""
        if self.device != "cuda":
            return {}
        count = f"{self.gpu_type}:{self.processes_per_node}" if self.gpu_type else str(self.processes_per_node)
        return {"gres": f"gpu:{count}"} if self.gpu_request == "gres" else {"gpus-per-node": count}

    def _srun(self, plan: Plan, module: str = "launcher.train.worker") -> list[object]:
        options = passed_on("srun", self.srun, self.site_options)
        return [
            "srun",
            f"--nodes={self.nodes}",
            Raw("--ntasks-per-node=1 --export=ALL --kill-on-bad-exit=1"),
            *(f"--{key}" if value is True else glued(f"--{key}=", value) for key, value in options.items()),
            *self._inside(plan),
            Raw('"$python" -m launcher.node "$run"'),
            *self._torchrun(plan),
            command_option("-m", module),
            Raw('"$run"'),
        ]

    def _examine(self, plan: Plan) -> list[object]:
        return self._srun(dataclasses.replace(plan, max_restarts=0), "launcher.doctor.examine")

    def _torchrun(self, plan: Plan) -> list[object]:
        meeting = f"--rdzv-backend={ONE_NODE}"
        if plan.world.nodes > 1:
            meeting = '--rdzv-backend=sealed --rdzv-endpoint="$head:$port" --rdzv-id="$SLURM_JOB_ID.$LAUNCHER_ATTEMPT"'
        return [
            Raw(f'"$python" -m {TORCHRUN}'),
            f"--nnodes={plan.world.nodes}",
            f"--nproc-per-node={plan.world.processes_per_node}",
            f"--max-restarts={plan.max_restarts}",
            Raw(meeting),
        ]

    def _inside(self, plan: Plan) -> list[object]:
        """The container, where there is one."""
        places = tuple(dict.fromkeys((plan.run_dir, plan.project, plan.directory))) if self.container else ()
        for path in places:
            if any(mark in path for mark in ',:"'):
                raise ConfigError(
                    f"cluster.container: {path!r} holds a sign with a meaning in mounts (, : or a quote); choose another path"
                )
        mounts = [f"{path}:{path}" for path in places] + self.mounts
        if self.container == "pyxis":
            comma: list[str] = [part for mount in mounts for part in (",", mount)][1:]
            return [glued("--container-image=", self.image or ""), glued("--container-mounts=", *comma), Raw('--container-workdir="$code"')]
        if self.container == "apptainer":
            graphics = ["--nv"] if self.device == "cuda" else []
            return [
                command_option("apptainer", "exec", *graphics),
                *(glued("--bind=", mount) for mount in mounts),
                Raw('--pwd="$code"'),
                self.image,
            ]
        return []

    def submit_argv(self, plan: Plan) -> list[str]:
        return ["sbatch", "--parsable", f"--chdir={plan.run_dir}", f"{plan.run_dir}/job.sh"]


def _whole(key: str, value: object, low: int, wanted: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"cluster.{key}={value} cannot be; type {wanted or f'a whole number from {low}'}")


def _match(key: str, value: object, pattern: re.Pattern[str], wanted: str) -> None:
    if value is not None and not pattern.fullmatch(str(value)):
        raise ConfigError(f"cluster.{key}={value!r} cannot be; type {wanted}")
