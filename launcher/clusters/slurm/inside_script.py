"""The text of a run inside an allocation, a pure function of the options and the plan: what a batch job does, without the job.

The functions that both need are taken out of slurm.sh by their names, so that each is written once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.clusters.script import LOOPBACK, NEXT_ATTEMPT, SCRUB
from launcher.clusters.slurm import script
from launcher.clusters.slurm.values import passed_on
from launcher.plan import Plan
from launcher.shell import Raw, block, command, glued

if TYPE_CHECKING:
    from launcher.clusters.slurm import Slurm

BODY = Path(__file__).with_name("inside.sh")
OUTER = (
    "# What salloc was asked for is not what this step is: SLURM_NTASKS, SLURM_CPUS_PER_TASK and a hundred others are options of srun.",
    "step_here=${SLURM_STEP_ID:-}",
    'for name in "${!SLURM_@}" "${!SRUN_@}" "${!SALLOC_@}"; do',
    '    case "$name" in',
    "    SLURM_CONF | SLURM_JWT | SLURM_JOB_ID | SLURM_JOB_END_TIME | SLURM_WORKING_CLUSTER) ;;",
    '    *) unset "$name" ;;',
    "    esac",
    "done",
    "# A run's own, where this shell is in its job.",
    "unset LAUNCHER_JOB LAUNCHER_LIMIT LAUNCHER_HEAD LAUNCHER_MEETING LAUNCHER_DEADLINE LAUNCHER_RUN_DIR",
)
SHARED = ("is_number", "say", "ask_job", "end_of_job", "find_head", "find_port", "make_key")
NO_GPU = {"gres": "none"}
"""A step that asks for none has all of the allocation's, and no other step runs beside it."""
WAIT_SECONDS = 30
"""For CPUs and GPUs that an earlier step is just leaving (KillWait); what has not gone then stays."""


def attended_script(cluster: Slurm, plan: Plan) -> str:
    lines = [
        "#!/bin/bash",
        f"# {plan.name}/{plan.id}: {plan.world}. Rendered by launcher {plan.version}; what runs is this file.",
        "set -euo pipefail",
        command(["umask", plan.umask]),
        "",
        *SCRUB,
        *script.prelude_lines(cluster, plan),
        "",
        *OUTER,
        "",
        *(LOOPBACK if plan.world.nodes == 1 else ()),
        *script.names(cluster, plan),
        f"own={command([plan.python])} # of this machine, in no container",
        f"count={plan.world.nodes}",
        "",
        *script.settings(plan),
        *script.between_processes(cluster, plan),
        "",
        'cd "$code" # where -m looks first',
        *NEXT_ATTEMPT,
        'here="$run/attempts/$LAUNCHER_ATTEMPT"',
        'echo "$$" >"$here/agent.pid"',
        'exec >>"$run/job.log" 2>&1',
        "",
        "# Both become srun, which takes TERM for the order to end what it has started, and is sent it where this shell is killed.",
        "step() {",
        *_tied(script.srun(cluster, plan, resources=[*_resources(cluster), Raw('${nodes:+"--nodelist=$nodes"}')])),
        "}",
        "look() { # TEXT: of bash, on every node",
        *_tied(_look(cluster, plan)),
        "}",
        "",
        *_functions(),
        "",
        BODY.read_text(encoding="utf-8").rstrip("\n"),
    ]
    return "\n".join(lines) + "\n"


def _tied(argv: list[object]) -> list[str]:
    return ['    exec "$own" -m launcher.node.deathsig "$$" \\', "    " + block(argv).replace("\n", "\n    ")]


def _resources(cluster: Slurm) -> list[object]:
    return [
        Raw('${share:+"$share"} --jobid="$SLURM_JOB_ID"'),
        Raw(f"--immediate={WAIT_SECONDS} --input=none --mem=0"),
        f"--cpus-per-task={script.cpus_per_node(cluster)}",
        *(f"--{key}={value}" for key, value in (script.gpus(cluster) or NO_GPU).items()),
    ]


def _look(cluster: Slurm, plan: Plan) -> list[object]:
    options = {key: value for key, value in passed_on("srun", cluster.srun, cluster.site_options).items() if key in ("nodelist", "exclude")}
    return [
        "srun",
        *_resources(cluster),
        f"--nodes={plan.world.nodes}",
        Raw("--ntasks-per-node=1 --export=ALL"),
        *(glued(f"--{key}=", value) for key, value in options.items()),
        Raw('bash -c "$1" launcher "$((SLURM_JOB_ID + $$))"'),
    ]


def _functions() -> list[str]:
    text = script.BODY.read_text(encoding="utf-8")
    found = {name: re.search(rf"^{name}\(\) \{{(?:[^\n]* \}}$|[^\n]*\n.*?^\}}$)", text, re.MULTILINE | re.DOTALL) for name in SHARED}
    far = "# shellcheck disable=SC2329 # the first node's shell calls it"
    return [line for name, each in found.items() if each for line in ([far] if name.startswith("find_") else []) + [each[0]]]
