"""Why an attempt failed: one error, from what the ranks wrote and what torchrun saw of their deaths."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

from launcher.errors import BY_EXIT_CODE, LaunchError, TrainingFailed
from launcher.rundir import RunDir

_DEATH = re.compile(r"rank\s*: (\d+) .*\n\s*exitcode\s*: (-\d+)")
"""torchrun's table of failures: a rank, and the signal that ended it."""

LOST_PEER = re.compile(
    r"Connection (was likely )?(reset|closed)|Broken pipe|remote process|peer closed|NCCL|Failed to recv|Socket Timeout", re.IGNORECASE
)
"""What a rank says whose peer has died: true, and not the cause."""


def failure(run: RunDir, attempt: int, status: int) -> LaunchError:
    """The error of the rank that failed first. `status` is torchrun's own exit status."""
    report = _newest_report(run.attempt(attempt))
    agent = _text(run.agent_log(attempt))
    death = _DEATH.search(agent)
    if report is not None and not (death and LOST_PEER.search(report["message"])):
        return _reported(run, attempt, report)
    if death:
        rank = int(death[1])
        return TrainingFailed(
            f"rank {rank} {_death(int(death[2]))}; go on from the newest checkpoint with: "
            f"python -m launcher resume {run} (log: {run.rank_log(attempt, rank)})"
        )
    last = agent.strip().splitlines()[-1] if agent.strip() else "it wrote nothing"
    return TrainingFailed(f"torchrun {_death(status)}: {last} (log: {run.agent_log(attempt)})")


def _reported(run: RunDir, attempt: int, report: dict[str, Any]) -> LaunchError:
    kind = BY_EXIT_CODE.get(report["exit_code"], TrainingFailed)
    if not report["traceback"]:
        return kind(report["message"])
    return kind(
        f"rank {report['rank']} on {report['host']} failed at step {report['step']}: "
        f"{report['exception']}: {report['message']} (log: {run.rank_log(attempt, report['rank'])})"
    )


def _newest_report(attempt: Path) -> dict[str, Any] | None:
    """error.json of the first start, error.<n>.json of torchrun's n-th restart: of the last one that has any."""
    reports = {int(path.name.split(".")[1]) if path.name.count(".") == 2 else 0: path for path in attempt.glob("error*.json")}
    try:
        return json.loads(_text(reports[max(reports)])) if reports else None
    except ValueError:
        return None  # torn: the disk was full


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _death(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    guess = ", which is what running out of memory looks like" if name == "SIGKILL" else ""
    return f"was killed by {name}{guess}"
