"""A GPU that broke is no exception of the program's: the run goes on elsewhere. `python -m launcher.node.hardware RUN_DIR ATTEMPT` for the
batch shell, where a process was ended before it could say so itself.

Which words mean it: launcher/verdict/gpu_words.py. Those that a program can bring about too are believed once, and are the program's where
they come from another node as well.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

from launcher.doctor import findings
from launcher.errors import RunError
from launcher.rundir.rundir import RunDir
from launcher.trust import reading, writing
from launcher.verdict import evidence, gpu_words


def blames_node(run: RunDir, attempt: int, text: str, node: str = "") -> bool:
    """Whether these words put the blame on a node, by default this one; then it is noted as one not to be used again, by the name that the
    scheduler has for it."""
    is_sure = gpu_words.OF_THE_NODE.search(text)
    if not is_sure and not gpu_words.OF_BOTH.search(text):
        return False
    node = node or _told(run, "name") or socket.gethostname()
    if not is_sure:
        _note(run.attempt(attempt) / "doubtful", node)
        if any({node} != seen for number in range(attempt) if (seen := _nodes_in(run.attempt(number) / "doubtful"))):
            return False  # two nodes do not break in the same way: the program does it
    _note(findings.bad_nodes_file(run, attempt), node)
    return True


def _nodes_in(path: Path) -> set[str]:
    try:
        return set(reading.whole(path).decode("utf-8", "replace").split())
    except OSError:
        return set()


def _note(path: Path, node: str) -> None:
    """Never in the way of the report."""
    if node not in _nodes_in(path):
        with contextlib.suppress(OSError), os.fdopen(writing.to_append(path), "a", encoding="utf-8") as file:
            file.write(f"{node}\n")


def main(argv: list[str]) -> int:
    """0 where a rank's log speaks of a broken GPU and its node is known."""
    run, attempt = RunDir(argv[1]), int(argv[2])
    names = _nodes(run)
    hosts = {death.rank: names.get(death.node, death.host) for death in evidence.deaths(run, attempt)}
    logs = [(hosts[rank], _text(path)) for rank, path in evidence.rank_logs(run, attempt) if rank in hosts]
    blamed = [node for node, text in logs if blames_node(run, attempt, text, node)]
    return 0 if blamed else 1


def _nodes(run: RunDir) -> dict[int, str]:
    """The scheduler's names of the job's nodes by their number: a host calls itself by any name, and a scheduler takes none but its own."""
    try:
        return dict(enumerate(findings.expand(_told(run, "nodes"))))
    except ValueError:
        return {}


def _told(run: RunDir, what: str) -> str:
    try:
        return run.read_plan().hear(what)
    except RunError:
        return ""


def _text(path: Path) -> str:
    return "\n".join(evidence.tail(path))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
