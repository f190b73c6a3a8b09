"""What a site sets in every login shell for sbatch and srun: SBATCH_ACCOUNT, SLURM_CPU_BIND and the like.

sbatch lets its own win over the `#SBATCH` lines of a script. Here the plan wins: what it says, or the launcher writes itself, is not taken
from there, and what it leaves open is. Those of srun are nobody's in a job: it would get them from the shell that submitted it, and another
shell resumes it. Inside a job nothing is taken at all: there it may be what an outer job was given. Of what is not, one line says so.
"""

from __future__ import annotations

import os
import re
import sys

from launcher.clusters.slurm.options import OURS, OURS_OF_SBATCH, SRUN

_SPELT = {
    "TIMELIMIT": "time",
    "MEM_PER_NODE": "mem",
    "ARRAY_INX": "array",
    "REQ_SWITCH": "switches",
    "WAIT4SWITCH": "switches",
    "DEBUG": "verbose",
    "EXPORT_FILE": "export",
    "EXPORT_ENV": "export",
    "BURST_BUFFER": "bb",
    "CPU_FREQ_REQ": "cpu-freq",
    "SEGMENT_SIZE": "segment",
    "MPI_TYPE": "mpi",
    "KILL_BAD_EXIT": "kill-on-bad-exit",
    "LABELIO": "label",
    "UNBUFFEREDIO": "unbuffered",
    "STDINMODE": "input",
    "STDOUTMODE": "output",
    "STDERRMODE": "error",
    "NPROCS": "ntasks",
    "NNODES": "nodes",
    "NCORES_PER_SOCKET": "cores-per-socket",
    "NSOCKETS_PER_NODE": "sockets-per-node",
    "WORKING_DIR": "chdir",
    "REMOTE_CWD": "chdir",
}
"""SBATCH_…, SLURM_… or SRUN_… -> the option it stands for, where that has another name."""
_OPEN = frozenset(("account", "qos", "partition", "constraint", "exclude", "mem", "clusters"))
"""Options of our own that the plan may leave to the site."""
_SAME = (
    {"mem", "mem-per-cpu", "mem-per-gpu"},
    {"gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"},
    {"cpus-per-task", "cpus-per-gpu", "tres-per-task"},
    {"requeue", "no-requeue"},
)
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
    given = {name: _option(name) for name in sorted(os.environ) if name.startswith("SBATCH_")}
    if in_a_job():
        _tell_in_a_job([*given])
        return {}
    said = set(re.findall(r"^#SBATCH --([\w-]+)", script, re.MULTILINE))
    said |= {other for same in _SAME if same & said for other in same}
    taken = {name for name, option in given.items() if option not in said and (option in _OPEN or option not in OURS)}
    for name in given.keys() - taken - {"SBATCH_CLUSTERS"}:
        _tell(name, "the run says it itself", OURS.get(given[name], f"+cluster.sbatch.{given[name]}=…"))
    for name in sorted(os.environ):
        option = _option(name)
        if name.startswith(("SLURM_", "SRUN_")) and name != "SLURM_CLUSTERS" and option in SRUN | OURS.keys():
            own = f"+cluster.{'sbatch' if option in _OF_A_JOB else 'srun'}.{option}=…"
            _tell(name, "a job takes none that are srun's", own if option in OURS_OF_SBATCH else OURS.get(option, own))
    return {name: os.environ[name] for name in given if name in taken - {"SBATCH_CLUSTERS"}}


_OF_A_JOB = frozenset(("bb", "dependency", "exclusive", "hint", "licenses", "reservation", "switches", "wckey"))
"""Options of both that are decided when a job is given its nodes."""


def _option(variable: str) -> str:
    word = variable.partition("_")[2]
    return _SPELT.get(word, word.lower().replace("_", "-"))


def _tell(name: str, why: str, instead: str) -> None:
    if name not in _told:
        _told.add(name)
        print(f"launcher: warning: {name} of the environment is not used: {why}; type {instead}", file=sys.stderr)


def _tell_in_a_job(names: list[str]) -> None:
    if "" in _told:
        return
    _told.add("")
    more = f", nor from {', '.join(names)}, which may be that job's" if names else ""
    told = f"typed inside job {os.environ['SLURM_JOB_ID']}; the new job takes nothing from it{more} (cluster.inside=true runs in it)"
    print(f"launcher: warning: {told}", file=sys.stderr)
