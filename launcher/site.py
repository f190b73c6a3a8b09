"""What a site sets in every login shell for sbatch: SBATCH_ACCOUNT and the like.

sbatch lets them win over the `#SBATCH` lines of a script. Here the plan wins: what it says, or the launcher writes itself, is not taken
from there, and what it leaves open is. Inside a job nothing is: there it may be what an outer job was given.
"""

from __future__ import annotations

import os
import re
import sys

from launcher.clusters.slurm_options import OURS

_SPELT = {
    "TIMELIMIT": "time",
    "MEM_PER_NODE": "mem",
    "ARRAY_INX": "array",
    "REQ_SWITCH": "switches",
    "WAIT4SWITCH": "switches",
    "DEBUG": "verbose",
    "EXPORT_FILE": "export",
}
"""SBATCH_… -> the option it stands for, where that has another name."""
_OPEN = frozenset(("account", "qos", "partition", "constraint", "exclude", "mem", "clusters"))
"""Options of our own that the plan may leave to the site."""
_SAME = ({"mem", "mem-per-cpu", "mem-per-gpu"}, {"gres", "gpus", "gpus-per-node", "gpus-per-task"}, {"requeue", "no-requeue"})
"""Where the plan has one of them, the others would contradict it."""
_told: set[str] = set()


def in_a_job() -> bool:
    return "SLURM_JOB_ID" in os.environ


def clusters() -> str:
    """Where the site sends jobs. Passed on as an argument: exported into the job, it would send the job's own questions there and back."""
    return "" if in_a_job() else os.environ.get("SBATCH_CLUSTERS") or os.environ.get("SLURM_CLUSTERS") or ""


def partition() -> str | None:
    return None if in_a_job() else os.environ.get("SBATCH_PARTITION") or None


def environment(script: str) -> dict[str, str]:
    """The variables that sbatch may see beside this script. Of each that is left out one line says so."""
    if in_a_job():
        return {}
    said = set(re.findall(r"^#SBATCH --([\w-]+)", script, re.MULTILINE))
    said |= {other for same in _SAME if same & said for other in same}
    taken: dict[str, str] = {}
    for name, value in os.environ.items():
        if not name.startswith("SBATCH_") or name == "SBATCH_CLUSTERS":
            continue
        word = name.removeprefix("SBATCH_")
        option = _SPELT.get(word, word.lower().replace("_", "-"))
        if option not in said and (option in _OPEN or option not in OURS):
            taken[name] = value
        elif name not in _told:
            _told.add(name)
            instead = OURS.get(option, f"cluster.sbatch.{option}=…")
            print(f"launcher: warning: {name} of the environment is not used: the run says it itself; type {instead}", file=sys.stderr)
    return taken
