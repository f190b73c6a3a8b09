"""Where an examination leaves what it finds, and how a report is made of it, also of what is left of one that hung or died.

    attempts/000/doctor_rank_R.json   each process writes this before it waits for anybody, and again whenever it has come further
    attempts/000/doctor.json          the report with its verdict
    attempts/000/bad_nodes            one name a line, where there are any: what the batch shell leaves out

`python -m launcher.doctor.findings RUN_DIR ATTEMPT` makes the last two where no process was left to do it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.doctor.judge import Verdict, judge
from launcher.errors import LaunchError
from launcher.plan import Plan
from launcher.rundir.rundir import RunDir, read_text, umask_of, write_atomic
from launcher.trust import reading

ALONE = "LAUNCHER_DOCTOR"
"""Environment: set to `alone` where the examination is the whole job and no training follows."""
DRILL = "LAUNCHER_DOCTOR_FAULT"
"""Environment: `node2:matmul,node3:hang` makes these checks fail in earnest on these nodes; a drill for the doctor itself.

matmul: the product is corrupted; hang: a process stops for ever before it meets the others; link: what it sends is corrupted;
sum: what it adds is corrupted; files: its file is not written; clock: its clock is 5 s ahead.
"""


MOST_NODES = 100_000
_MOST_CHARACTERS = 100_000


def rank_file(run: RunDir, attempt: int, rank: int) -> Path:
    return run.attempt(attempt) / f"doctor_rank_{rank}.json"


def report_file(run: RunDir, attempt: int) -> Path:
    return run.attempt(attempt) / "doctor.json"


def nonce_file(attempt: Path, rank: int) -> Path:
    """What the others must see of this process; deleted when they have."""
    return attempt / f".doctor_nonce_{rank}"


def bad_nodes_file(run: RunDir, attempt: int) -> Path:
    return run.attempt(attempt) / "bad_nodes"


def read_report(run: RunDir, attempt: int) -> dict[str, Any] | None:
    """None where there is none yet. It is replaced atomically, so it is whole."""
    path = report_file(run, attempt)
    return reading.record(read_text(path)) if path.exists() else None


def left_behind(run: RunDir, attempt: int, plan: Plan) -> dict[str, Any]:
    """A report of what the processes wrote each for itself."""
    ranks: list[dict[str, Any]] = []
    for rank in range(plan.world.size):
        path = rank_file(run, attempt, rank)
        if path.exists():
            ranks.append(reading.record(read_text(path)))
    allotted = next((entry["allotted"] for entry in ranks if entry["allotted"]), None) or _allotted(run, attempt)
    return report_of(run, attempt, ranks, allotted, complete=False)


def report_of(run: RunDir, attempt: int, ranks: Sequence[Mapping[str, Any]], allotted: str, *, complete: bool) -> dict[str, Any]:
    """`allotted`: the nodes of the job as the scheduler has them, empty on this machine."""
    nodes = expand(allotted) or list(dict.fromkeys(str(entry["node"]) for entry in ranks))
    agents = [node for number, node in enumerate(nodes) if run.agent_log(attempt, number).exists()]
    return {"complete": complete, "nodes": nodes, "agents": agents, "ranks": list(ranks)}


def publish(run: RunDir, attempt: int, plan: Plan, report: Mapping[str, Any]) -> Verdict:
    """Judge a report and write both files. Raises RunError where they cannot be written."""
    verdict = judge(report, plan)
    if verdict.bad:
        write_atomic(bad_nodes_file(run, attempt), "".join(f"{node}\n" for node in sorted(verdict.bad)))
    whole = {**report, "verdict": {**dataclasses.asdict(verdict), "fine": verdict.fine}}
    write_atomic(report_file(run, attempt), json.dumps(whole, indent=1) + "\n")
    return verdict


def node_name(plan: Plan) -> str:
    """As the scheduler has it; the host's name on a machine without one."""
    return plan.hear("name") or os.uname().nodename


def drills(node: str) -> frozenset[str]:
    """Which checks shall fail on `node`."""
    wanted = [word.partition(":") for word in os.environ.get(DRILL, "").split(",")]
    return frozenset(check for name, _, check in wanted if name == node)


def expand(nodes: str) -> list[str]:
    """`rack[1-2]n[01-02],login` -> its names, in order. Raises ValueError for what is no such list, or one of more than there are."""
    if len(nodes) > _MOST_CHARACTERS:
        raise ValueError("a list of nodes that is too long")
    found: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        found.extend(_expand_one(part, MOST_NODES - len(found)))
    return found


def _expand_one(text: str, most: int) -> list[str]:
    names = [""]
    for plain, inside in re.findall(r"([^\[]*)(?:\[([^\]]*)\])?", text):
        ends = [_numbers(piece) for piece in inside.split(",")] if inside else []
        count = len(names) * sum(len(numbers) for numbers, _ in ends) if ends else len(names)
        if count > most:
            raise ValueError(f"a list of more than {MOST_NODES:,} nodes")
        middle = [str(number).zfill(width) for numbers, width in ends for number in numbers] or [""]
        names = [f"{name}{plain}{number}" for name in names for number in middle]
    return names


def _numbers(piece: str) -> tuple[range, int]:
    """And how many digits they have."""
    low, _, high = piece.partition("-")
    if max(len(low), len(high)) > 9:
        raise ValueError("a list of nodes with a number that is too long")
    return range(int(low), int(high or low) + 1), len(low)


def _allotted(run: RunDir, attempt: int) -> str:
    """The batch shell's line in the ledger."""
    for event in run.read_events():
        if event["event"] == "attempt" and event.get("attempt") == attempt:
            return str(event.get("reason")).removeprefix("nodes ")
    return ""


def main(argv: list[str]) -> int:
    run, attempt = RunDir(argv[1]), int(argv[2])
    os.umask(umask_of(run))
    try:
        plan = run.read_plan()
        print(f"launcher: doctor: {publish(run, attempt, plan, left_behind(run, attempt, plan))}")
    except LaunchError as error:
        print(f"launcher: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
