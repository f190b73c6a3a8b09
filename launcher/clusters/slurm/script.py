"""The text of a batch job, a pure function of the options and the plan.

`#SBATCH` lines come from checked values alone; what the job does afterwards is slurm.sh, copied in whole. One task per node: torchrun
starts that node's processes. Nothing a node knows better is decided here: launcher/node/__main__.py finds its address when it is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.clusters.script import LOOPBACK, NEXT_ATTEMPT, SAFE_PATH, SCRUB, TORCHRUN, command_option, meeting_on_one_node
from launcher.clusters.slurm import environment, prelude
from launcher.clusters.slurm.values import directive, limit_text, literal_path, passed_on
from launcher.devices import CPU, KINDS
from launcher.errors import ConfigError
from launcher.plan import SCRIPTED, Plan
from launcher.shell import Raw, block, command, export, glued

if TYPE_CHECKING:
    from launcher.clusters.slurm import Slurm

BODY = Path(__file__).with_name("slurm.sh")
_NOT_FOR_A_SCRIPT = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_PROCID", "SLURM_LOCALID")
"""A task of ours is a node, and a program that takes it for a process is in a world of another size. Lightning, where it sees SLURM_NTASKS,
requeues the job by itself on USR1 and goes on from a checkpoint of its own (SLURMEnvironment.detect; SLURM_JOB_NAME=interactive would do
too, and lie to everybody else)."""


def job_script(cluster: Slurm, plan: Plan) -> str:
    """The job script."""
    lines = [
        "#!/bin/bash",
        *directives(cluster, plan, output=literal_path(plan.run_dir, "job.log")),
        f"# {plan.name}/{plan.id}: {plan.world}. Rendered by launcher {plan.version}; what runs is this file.",
        "set -euo pipefail",
        command(["umask", plan.umask]),
        "",
        *SCRUB,
        *prelude_lines(cluster, plan),
        "",
        *(LOOPBACK if plan.world.nodes == 1 else ()),
        *names(cluster, plan),
        f"limit={cluster.seconds}",
        f"requeue={'yes' if cluster.requeue else 'no'}",
        "",
        *settings(plan),
        "# Since 22.05 srun no longer takes this from the job.",
        export("SRUN_CPUS_PER_TASK", cpus_per_node(cluster)),
        *between_processes(cluster, plan),
        "",
        'cd "$code" # where -m looks first',
        *NEXT_ATTEMPT,
        "",
        *(["# Lightning's own requeue is off: without a number of tasks it knows no SLURM."] if plan.program == SCRIPTED else []),
        "step() {",
        "    " + block(srun(cluster, plan)).replace("\n", "\n    "),
        "}",
        *(["examine() {", "    " + block(_examine(cluster, plan)).replace("\n", "\n    "), "}"] if cluster.doctor else []),
        "",
        BODY.read_text(encoding="utf-8").rstrip("\n"),
    ]
    return "\n".join(lines) + "\n"


def names(cluster: Slurm, plan: Plan) -> list[str]:
    """The variables of the script itself, and `cluster.env`."""
    return [
        *environment.lines(cluster.env, (cluster.image, cluster.container_python, *cluster.mounts, *cluster.srun.values())),
        f"run={command([plan.run_dir])}",
        f"code={command([plan.project])}",
        f"python={command([plan.python if cluster.container is None else cluster.container_python])}",
    ]


def settings(plan: Plan) -> list[str]:
    return [
        export("PYTHONPATH", Raw('"$code${PYTHONPATH:+:$PYTHONPATH}"')),
        SAFE_PATH,
        export("OMP_NUM_THREADS", plan.threads),
    ]


def between_processes(cluster: Slurm, plan: Plan) -> list[str]:
    return [
        "# torchrun gives its workers this long when one of them has failed; the others hang in a collective by then.",
        export("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 5),
        *([export("LAUNCHER_INTERFACE", cluster.interface)] if cluster.interface else []),
        *(export(name, value) for name, value in plan.env),
    ]


def prelude_lines(cluster: Slurm, plan: Plan) -> list[str]:
    if cluster.prelude is None:
        return []
    copied = f"{plan.run_dir}/prelude/{Path(cluster.prelude).name}"
    return prelude.lines(copied, f"{plan.run_dir}/events.jsonl", cluster.prelude_strict)


def array_script(cluster: Slurm, plan: Plan, name: str, place: str, members: int) -> str:
    """The script of an array whose members are the runs that `place`/<index> lead to; `plan` is one of theirs."""
    indices = f"0-{members - 1}{f'%{cluster.throttle}' if cluster.throttle else ''}"
    literal = literal_path(place, "all.log")
    lines = [
        "#!/bin/bash",
        *directives(cluster, plan, name=name, array=indices, output="%a.log" if literal == "all.log" else literal),
        f"# {members} members of a sweep. Each is a run like any other, with a job.sh of its own.",
        f'member={command([place])}/"$SLURM_ARRAY_TASK_ID"',
        '[ -d "$member" ] || member=$(<"$member") # a text, where the file system has no links',
        'exec bash "$member/job.sh" >>"$member/job.log" 2>&1',
    ]
    return "\n".join(lines) + "\n"


def directives(cluster: Slurm, plan: Plan, *, name: str | None = None, array: str | None = None, output: str = "job.log") -> list[str]:
    """The `#SBATCH` lines. `output` is relative to `--chdir`, which sbatch gets as an argument."""
    options: dict[str, Any] = {
        "job-name": f"{plan.name}.{plan.id}" if name is None else name,
        "nodes": plan.world.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": cpus_per_node(cluster),
        **gpus(cluster),
        "mem": cluster.memory,
        "time": limit_text(cluster.seconds),
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "exclude": cluster.exclude,
        "signal": f"B:USR2@{cluster.lead}",
        "requeue" if cluster.requeue else "no-requeue": True,
        "array": array,
        "open-mode": "append",
        "output": output,
        **passed_on("sbatch", cluster.sbatch, cluster.site_options),
    }
    return [directive(key, value) for key, value in options.items() if value is not None]


def cpus_per_node(cluster: Slurm) -> int:
    return cluster.cpus_per_process * cluster.processes_per_node


def gpus(cluster: Slurm) -> dict[str, str]:
    """Per node: from 24.11 on, GPUs bound per task keep NCCL from peer-to-peer copies."""
    if cluster.device == CPU:
        return {}
    count = f"{cluster.gpu_type}:{cluster.processes_per_node}" if cluster.gpu_type else str(cluster.processes_per_node)
    return {"gres": f"gpu:{count}"} if cluster.gpu_request == "gres" else {"gpus-per-node": count}


def srun(cluster: Slurm, plan: Plan, module: str = "", resources: Sequence[object] = ()) -> list[object]:
    """`resources`: what the step takes, where it is not all that the job has."""
    options = passed_on("srun", cluster.srun, cluster.site_options)
    return [
        "srun",
        *resources,
        f"--nodes={plan.world.nodes}",
        Raw("--ntasks-per-node=1 --export=ALL --kill-on-bad-exit=1"),
        *(f"--{key}" if value is True else glued(f"--{key}=", value) for key, value in options.items()),
        *_inside(cluster, plan),
        *([Raw(" ".join(["env", *(f"-u {name}" for name in _NOT_FOR_A_SCRIPT)]))] if plan.program == SCRIPTED else []),
        Raw('"$python" -m launcher.node "$run"'),
        *_torchrun(cluster, plan),
        command_option("-m", module or plan.program),
        Raw('"$run"'),
    ]


def _examine(cluster: Slurm, plan: Plan) -> list[object]:
    return srun(cluster, dataclasses.replace(plan, max_restarts=0), "launcher.doctor.examine")


def _torchrun(cluster: Slurm, plan: Plan) -> list[object]:
    meeting = f"--rdzv-backend={meeting_on_one_node(plan)}"
    if plan.world.nodes > 1:
        meeting = '--rdzv-backend=sealed --rdzv-endpoint="$head:$port" --rdzv-id="$SLURM_JOB_ID.$LAUNCHER_ATTEMPT"'
    return [
        Raw(f'"$python" -m {TORCHRUN}'),
        f"--nnodes={plan.world.nodes}",
        f"--nproc-per-node={plan.world.processes_per_node}",
        f"--max-restarts={plan.max_restarts}",
        Raw(meeting),
    ]


def _inside(cluster: Slurm, plan: Plan) -> list[object]:
    """The container, where there is one."""
    places = tuple(dict.fromkeys((plan.run_dir, plan.project, plan.directory))) if cluster.container else ()
    for path in places:
        if any(mark in path for mark in ',:"'):
            raise ConfigError(f"cluster.container: {path!r} holds a sign with a meaning in mounts (, : or a quote); choose another path")
    mounts = [f"{path}:{path}" for path in places] + cluster.mounts
    if cluster.container == "pyxis":
        comma: list[str] = [part for mount in mounts for part in (",", mount)][1:]
        return [glued("--container-image=", cluster.image or ""), glued("--container-mounts=", *comma), Raw('--container-workdir="$code"')]
    if cluster.container == "apptainer":
        graphics = KINDS[cluster.device].apptainer
        return [
            command_option("apptainer", "exec", *graphics),
            *(glued("--bind=", mount) for mount in mounts),
            Raw('--pwd="$code"'),
            cluster.image,
        ]
    return []
