"""The closing lines of a run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any, TypeVar

from launcher.rundir.progress import duration
from launcher.rundir.rundir import RunDir

Figure = TypeVar("Figure")


def closing(run: RunDir, summary: dict[str, Any]) -> str:
    """What a person wants to know at the end: how good, how fast, how long, where, and what to type next."""
    rows: list[tuple[str, str]] = []
    if summary.get("data_is_standin"):
        rows.append(("data", "THE BUILT-IN STAND-IN, not the real set: these figures say nothing about it"))
    for name, value in summary.items():
        if name.startswith("test_") and isinstance(value, int | float) and (number := _of(lambda of=value: float(of))) is not None:
            rows.append((name.replace("_", " "), f"{number:.2%}" if name == "test_accuracy" else f"{number:.4f}"))
    figures: dict[str, Callable[[], str]] = {
        "speed": lambda: f"{summary['samples_per_second']:,.0f} samples/s{_tokens(summary)} while training",
        "time": lambda: f"{duration(summary['seconds'])} in {summary['attempts']} attempt{'s' * (summary['attempts'] > 1)}",
        "training": lambda: f"{summary['effective']:.1%} of {duration(summary['wall_seconds'])}{_rest(summary)}",
        "steps": lambda: f"{summary['steps']:,} ({summary['samples']:,} samples)",
    }
    rows += [(name, text) for name, figure in figures.items() if (text := _of(figure))]
    places = {"metrics": run.metrics, "checkpoints": run.checkpoints, "logs": run.attempts}
    rows += [(name, str(path)) for name, path in places.items() if path.exists()]  # a script of the user's own need not have them all
    if run.tensorboard.exists():
        rows.append(("TensorBoard", f"python -m launcher tensorboard {shlex.quote(str(run))}"))
    width = max(12, *(len(name) for name, _ in rows)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def _tokens(summary: dict[str, Any]) -> str:
    """Where the task counts them, and of how much the devices' peak is known."""
    tokens = f", {summary['tokens_per_second']:,.0f} tokens/s" if "tokens_per_second" in summary else ""
    return tokens + (f" ({summary['mfu']:.1%} MFU)" if "mfu" in summary else "")


def _of(figure: Callable[[], Figure]) -> Figure | None:
    """None where the summary is not as a run has written it."""
    try:
        return figure()
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None


def _rest(summary: dict[str, Any]) -> str:
    """What the rest of the time went into, where it is worth a word."""
    kinds = {"evaluation": "evaluation", "save": "saving", "lost": "starting and waiting"}
    parts = [f"{words} {duration(summary[f'{name}_seconds'])}" for name, words in kinds.items()]
    causes = [f"{count} {cause}" for cause, count in summary["restarts"].items()]
    replayed = [f"{summary['replayed_steps']} steps done again"] if summary["replayed_steps"] else []
    return "; ".join(["", ", ".join(parts), *([f"restarts: {', '.join(causes)}"] if causes else []), *replayed])
