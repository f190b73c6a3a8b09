"""job.sh of a run on machines without a scheduler: where it is started it connects to the hosts, and on each of them it is their node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from launcher.clusters.script import LOOPBACK, NEXT_ATTEMPT, SAFE_PATH, SCRUB, TORCHRUN, command_option, meeting_on_one_node
from launcher.clusters.ssh.hosts import Host
from launcher.clusters.ssh.link import python_of
from launcher.plan import Plan
from launcher.shell import Raw, block, command, export

if TYPE_CHECKING:
    from launcher.clusters.ssh import Ssh


def job_script(cluster: Ssh, plan: Plan, hosts: Sequence[Host]) -> str:
    """`hosts`: each with its slots."""
    lines = [
        "#!/usr/bin/env bash",
        f"# {plan.name}/{plan.id}: {plan.world}. Rendered by launcher {plan.version}; what runs is this file.",
        "set -euo pipefail",
        command(["umask", plan.umask]),
        f"run={command([plan.run_dir])}",
        "",
        *SCRUB,
        export("PYTHONPATH", Raw(command([plan.project]) + '"${PYTHONPATH:+:$PYTHONPATH}"')),
        SAFE_PATH,
        "",
        "# Where it is started: connect to the hosts, and start this file on each of them (launcher/clusters/ssh/supervise.py).",
        'if [ -z "${LAUNCHER_NODE:-}" ]; then',
        *(f"    {line}" for line in NEXT_ATTEMPT),
        '    echo "$$" >"$run/attempts/$LAUNCHER_ATTEMPT/agent.pid"',
        f"    {command(['cd', plan.project])} # where -m looks first",
        "    exec " + block(_supervise(cluster, plan, hosts)).replace("\n", "\n    "),
        "fi",
        "",
        "# On a host: its node.",
        export("OMP_NUM_THREADS", plan.threads),
        *(export(name, value) for name, value in cluster.env.items() if value is not None),
        *(LOOPBACK if plan.world.nodes == 1 else ()),
        "# torchrun gives its workers this long when one of them has failed; the others hang in a collective by then.",
        export("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", 5),
        *(export(name, value) for name, value in plan.env),
        command(["cd", plan.project]),
        "exec " + block(_node(plan)),
    ]
    return "\n".join(lines) + "\n"


def _supervise(cluster: Ssh, plan: Plan, hosts: Sequence[Host]) -> list[object]:
    options = {"interface": cluster.interface, "port": cluster.port, "ssh-config": cluster.ssh_config}
    return [
        plan.python,
        command_option("-m", "launcher.clusters.ssh"),
        Raw('"$run"'),
        f"--device={plan.world.device}",
        f"--busy={cluster.busy}",
        f"--watch={cluster.watch}",
        f"--answer={cluster.answer}",
        *(f"--{name}={value}" for name, value in options.items() if value is not None),
        *(
            command_option("--host", host.name, str(host.slots), *_other(python_of(cluster.python, host.name, plan.python), plan.python))
            for host in hosts
        ),
    ]


def _other(python: str, usual: str) -> tuple[str, ...]:
    return (python,) if python != usual else ()


def _node(plan: Plan) -> list[object]:
    meeting = f"--rdzv-backend={meeting_on_one_node(plan)}"
    if plan.world.nodes > 1:
        meeting = '--rdzv-backend=sealed --rdzv-endpoint="$LAUNCHER_HEAD:$LAUNCHER_PORT" --rdzv-id="ssh.$LAUNCHER_ATTEMPT"'
    return [
        Raw('"$LAUNCHER_PYTHON" -m launcher.node "$run"'),
        Raw(f'"$LAUNCHER_PYTHON" -m {TORCHRUN}'),
        f"--nnodes={plan.world.nodes}",
        Raw('--nproc-per-node="$LAUNCHER_PROCESSES"'),
        f"--max-restarts={plan.max_restarts}",
        Raw(meeting),
        command_option("-m", plan.program),
        Raw('"$run"'),
    ]
