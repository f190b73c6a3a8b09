"""Why a run failed, in the few words of a table: the first of these that its logs say."""

from __future__ import annotations

import re

KNOWN = {
    r"argument must be .* not 'NoneType'": "TypeError: no --machine_rank in the published script",
    r"SLURM_MEM_PER_CPU.*mutually exclusive": "srun refuses: memory options of the outer job",
    r"another process is utilizing it": "port is in use",
    r"scontrol: command not found": "needs scontrol on the node",
    r"DUE TO TIME LIMIT": "killed at the time limit",
    r"timed-out too many times": "time limit too often, no progress",
    r"can't open file|No such file or directory": "path is split at the space",
    r"address already in use|EADDRINUSE": "port is in use",
    r"a world of \d+, wanted": "a smaller world",
    r"[Cc]onnect\w* (full mesh|failed)|Connection refused|unable to connect": "ranks cannot connect",
}


def words(text: str) -> str:
    return next((said for pattern, said in KNOWN.items() if re.search(pattern, text)), "")
