"""Lines that the job scripts of all clusters have."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.plan import SCRIPTED, Plan
from launcher.shell import Raw, block, command, export

TORCHRUN = "launcher.train.torchrun"
ONE_NODE = "one-node"
"""How its processes meet: without a port (docs/decisions/0080-meeting-in-private.md)."""
ONE_NODE_PORT = "one-node-port"
"""How those of a script do, which know MASTER_ADDR and MASTER_PORT and nothing else: at a port of the loopback."""

LOOPBACK = (
    "# One machine needs no network, and nobody on one has to reach us; its own name may not resolve either.",
    'case "$(uname)" in Linux) GLOO_SOCKET_IFNAME=lo ;; *) GLOO_SOCKET_IFNAME=lo0 ;; esac',
    'export GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME="=$GLOO_SOCKET_IFNAME"',
)

SAFE_PATH = "export PYTHONSAFEPATH=1 # for what Python starts by itself, from 3.11 on: a queue.py where it stands is not its own"

SCRUB = (
    "# torchrun ends at a word here that it does not know, and many programs read the same variable.",
    'LOGLEVEL=$(printf %s "${LOGLEVEL:-}" | tr "[:lower:]" "[:upper:]")',
    'case "$LOGLEVEL" in DEBUG | INFO | WARNING | ERROR | CRITICAL) export LOGLEVEL ;; *) unset LOGLEVEL ;; esac',
    "# What an outer job, torchrun or `accelerate config` left in the environment would change this run in silence.",
    "unset RANK LOCAL_RANK GROUP_RANK ROLE_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_WORLD_SIZE ROLE_WORLD_SIZE",
    "unset MASTER_ADDR MASTER_PORT NODE_RANK",
    'for name in "${!ACCELERATE_@}" "${!FSDP_@}" "${!PARALLELISM_CONFIG_@}" "${!TORCHELASTIC_@}" "${!PET_@}"; do',
    '    unset "$name"',
    "done",
)

NEXT_ATTEMPT = (
    "# One directory per attempt. mkdir is atomic: two starts never share one.",
    "attempt=0",
    'while ! mkdir "$run/attempts/$(printf %03d "$attempt")" 2>/dev/null; do',
    '    [ -d "$run/attempts/$(printf %03d "$attempt")" ] || { echo "$run/attempts cannot be written" >&2; exit 3; }',
    "    attempt=$((attempt + 1))",
    "done",
    'LAUNCHER_ATTEMPT=$(printf %03d "$attempt")',
    "export LAUNCHER_ATTEMPT",
    'ln -sfn "$LAUNCHER_ATTEMPT" "$run/attempts/latest" 2>/dev/null || true # for people; not every file system has links',
)


def environment(plan: Plan, network: Sequence[str] = LOOPBACK) -> list[str]:
    """Of a script on one node: from what a shell or another job left, to what the processes shall find; and the attempt's directory."""
    return [
        *SCRUB,
        "",
        export("PYTHONPATH", Raw(command([plan.project]) + '"${PYTHONPATH:+:$PYTHONPATH}"')),
        SAFE_PATH,
        export("OMP_NUM_THREADS", plan.threads),
        *network,
        *(export(name, value) for name, value in plan.env),
        "",
        *NEXT_ATTEMPT,
    ]


def command_option(*words: str) -> Raw:
    """An option and its argument that belong on one line."""
    return Raw(command(words))


def meeting_on_one_node(plan: Plan) -> str:
    return ONE_NODE_PORT if plan.program == SCRIPTED else ONE_NODE


def torchrun_here(plan: Plan) -> list[object]:
    """Of a run on one node. The local address spares a machine whose own name does not resolve."""
    return [
        plan.python,
        command_option("-m", TORCHRUN),
        command_option(f"--rdzv-backend={meeting_on_one_node(plan)}"),
        "--local-addr=127.0.0.1",
        f"--nproc-per-node={plan.world.processes_per_node}",
        f"--max-restarts={plan.max_restarts}",
        command_option("--module", plan.program),
        Raw('"$run"'),
    ]


def job_on_one_node(plan: Plan, job: str) -> str:
    """The whole script of a job that has one node and is not requeued; `job` names the variable that holds its id there.

    It leaves what `status` and `why` read of an attempt: whose it was, and the word for how it ended.
    """
    lines = [
        "#!/usr/bin/env bash",
        f"# {plan.name}/{plan.id}: {plan.world}. Rendered by launcher {plan.version}; what runs is this file.",
        "set -euo pipefail",
        command(["umask", plan.umask]),
        f"run={command([plan.run_dir])}",
        "",
        *environment(plan),
        'here="$run/attempts/$LAUNCHER_ATTEMPT"',
        f'printf \'%s\\n\' "${job}" >"$here/job"',
        'rm -f "$run/STOP" # of an earlier attempt',
        "",
        "status=0",
        "(",
        '    export LAUNCHER_AGENT_PID="$BASHPID" # exec keeps it: a worker tells its torchrun from a foster parent by it',
        f"    {command(['cd', plan.project])} # where -m looks first",
        "    exec " + block(torchrun_here(plan)).replace("\n", "\n    ") + ' \\\n        >"$here/agent_0.log" 2>&1',
        ") || status=$?",
        "",
        'case "$(head -n 1 "$here/outcome" 2>/dev/null || true)" in',
        'done) echo "done" >"$here/ended" ;;',
        'stopped*) echo stopped >"$here/ended" && status=75 ;;',
        '*) echo failed >"$here/ended" ;;',
        "esac",
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"
