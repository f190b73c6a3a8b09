"""A GPU that broke is no exception of the program's: the run goes on elsewhere. `python -m launcher.hardware RUN_DIR ATTEMPT` for the batch
shell, where a process was ended before it could say so itself.

Which words mean it is in launcher/signatures.py (`gpu_fault`). What a program can bring about by itself is not among them: an illegal
address, an assertion on the device, memory that ran out.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from launcher import evidence, findings
from launcher.rundir import RunDir
from launcher.signatures import SIGNATURES

_BROKEN = [each.pattern for each in SIGNATURES if each.name == "gpu_fault"]


def is_broken(text: str) -> bool:
    """Whether these words are of a GPU, or of what joins GPUs, that failed."""
    return any(pattern.search(text) for pattern in _BROKEN)


def name_node(run: RunDir, attempt: int, node: str = "") -> None:
    """Note the node that is not to be used again, as SLURM names it; without a word this one. Never in the way of the report."""
    node = node or os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    try:
        place = findings.bad_nodes_file(run, attempt)
        if node not in (place.read_text(encoding="utf-8").split() if place.exists() else []):
            with place.open("a", encoding="utf-8") as file:
                file.write(f"{node}\n")
    except OSError:
        return


def main(argv: list[str]) -> int:
    """0 where a rank's log speaks of a broken GPU and its node is known."""
    run, attempt = RunDir(argv[1]), int(argv[2])
    names = _nodes()
    hosts = {death.rank: names.get(death.node, death.host) for death in evidence.deaths(run, attempt)}
    found = [rank for rank, path in evidence.rank_logs(run, attempt) if rank in hosts and is_broken(_text(path))]
    for rank in found:
        name_node(run, attempt, hosts[rank])
    return 0 if found else 1


def _nodes() -> dict[int, str]:
    """SLURM's names of the job's nodes by their number: a host calls itself by any name, and SLURM takes none that it does not know."""
    try:
        return dict(enumerate(findings.expand(os.environ.get("SLURM_JOB_NODELIST", ""))))
    except ValueError:
        return {}


def _text(path: Path) -> str:
    return "\n".join(evidence.tail(path))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
