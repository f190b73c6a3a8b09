"""The closing lines of a run."""

from __future__ import annotations

import shlex
from typing import Any

from launcher.progress import duration
from launcher.rundir import RunDir


def closing(run: RunDir, summary: dict[str, Any]) -> str:
    """What a person wants to know at the end: how good, how fast, how long, where, and what to type next."""
    rows: list[tuple[str, str]] = []
    if summary.get("data_is_standin"):
        rows.append(("data", "THE BUILT-IN STAND-IN, not the real set: these figures say nothing about it"))
    for name, value in summary.items():
        if name.startswith("test_"):
            rows.append((name.replace("_", " "), f"{value:.2%}" if name == "test_accuracy" else f"{value:.4f}"))
    rows += [
        ("speed", f"{summary['samples_per_second']:,.0f} samples/s while training"),
        ("time", f"{duration(summary['seconds'])} in {summary['attempts']} attempt{'s' * (summary['attempts'] > 1)}"),
        ("training", f"{summary['effective']:.1%} of {duration(summary['wall_seconds'])}{_rest(summary)}"),
        ("steps", f"{summary['steps']:,} ({summary['samples']:,} samples)"),
        ("metrics", str(run.metrics)),
        ("checkpoints", str(run.checkpoints)),
        ("logs", str(run.attempts)),
        ("TensorBoard", f"python -m launcher tensorboard {shlex.quote(str(run))}"),
    ]
    return "\n".join(f"{name:<14}{value}" for name, value in rows)


def _rest(summary: dict[str, Any]) -> str:
    """What the rest of the time went into, where it is worth a word."""
    kinds = {"evaluation": "evaluation", "save": "saving", "lost": "starting and waiting"}
    parts = [f"{words} {duration(summary[f'{name}_seconds'])}" for name, words in kinds.items()]
    causes = [f"{count} {cause}" for cause, count in summary["restarts"].items()]
    replayed = [f"{summary['replayed_steps']} steps done again"] if summary["replayed_steps"] else []
    return "; ".join(["", ", ".join(parts), *([f"restarts: {', '.join(causes)}"] if causes else []), *replayed])
