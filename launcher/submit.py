"""The only place that starts a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from launcher.deathsig import die_with_parent
from launcher.errors import BY_EXIT_CODE, ConfigError, LaunchError
from launcher.plan import Cluster, Plan


def start(cluster: Cluster, plan: Plan) -> subprocess.Popen[bytes]:
    """Start the job script in a session of its own: a Ctrl-C typed here reaches us alone, and we decide what it means.

    The kernel kills it when this process dies, however it dies; torchrun's workers ask the same of torchrun.
    """
    return subprocess.Popen(
        cluster.submit_argv(plan),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def prepare_data(node: dict[str, Any]) -> dict[str, Any]:
    """Find, download and decode the data in a process of its own, before anything is started: it may import what it likes, its
    progress bar has the terminal, and its error is one line now instead of one per rank later.

    Returns the keywords that pin what was found. Raises ConfigError or RunError.
    """
    done = subprocess.run(
        [sys.executable, "-m", "launcher.prepare"],
        input=json.dumps(node).encode(),
        stdout=subprocess.PIPE,
        check=False,
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise ConfigError(f"data: preparing it ended with status {done.returncode} and no answer; see above") from None
    if "error" in answer:
        raise BY_EXIT_CODE.get(answer["exit_code"], LaunchError)(answer["error"])
    return answer["pinned"]


def become(argv: list[str]) -> int:
    """Replace this process by another program (TensorBoard)."""
    sys.stdout.flush()
    os.execv(argv[0], argv)
