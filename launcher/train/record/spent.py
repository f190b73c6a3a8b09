"""What became of a run's time, for its summary: how much of it trained, and what cost the rest."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from launcher.rundir.rundir import RunDir
from launcher.train.checkpoint.stored import TrainState


def spent(run: RunDir, state: TrainState, attempt: int) -> dict[str, Any]:
    """`effective` is training time over wall time, since the first attempt began; `lost_seconds` is what went into starting, into waiting
    between attempts, and into steps that were done again."""
    events = run.read_events()
    begun = [event["time"] for event in events if event["event"] in ("attempt", "submitted")]
    first = min((event["time"] for event in events if event["event"] == "attempt"), default=min(begun, default=time.time()))
    wall = max(time.time() - first, 1e-9)
    return {
        "wall_seconds": wall,
        "train_seconds": state.train_seconds,
        "data_seconds": state.data_seconds,
        "evaluation_seconds": state.evaluation_seconds,
        "save_seconds": state.save_seconds,
        "lost_seconds": max(0.0, wall - state.train_seconds - state.evaluation_seconds - state.save_seconds),
        "effective": state.train_seconds / wall,
        "replayed_steps": sum(int(event.get("replayed", 0)) for event in events if event["event"] == "started"),
        "rollbacks": state.rollbacks,
        "skipped_updates": state.skipped,
        "restarts": dict(Counter(_cause(run, number) for number in range(attempt))),
    }


def _cause(run: RunDir, attempt: int) -> str:
    """One word for the end of an attempt before this one."""
    return run.how_it_ended(attempt).removeprefix("requeued-") or "killed"  # it had no time to say anything
