"""The line that says how far a run is: written by rank 0 into its log, read back by whoever watches."""

from __future__ import annotations

import re
from typing import NamedTuple

FAILED = "--- failed"
"""What a rank writes above its traceback: the log is for the traceback, the terminal for the one line that sums it up."""

_LINE = re.compile(r"step (\d+)/(\d+)  \S+%  (.*)")


class Progress(NamedTuple):
    step: int
    steps: int
    text: str
    """Loss, accuracy, lr, speed, ETA: whatever the task reports."""


def step_line(step: int, steps: int, metrics: dict[str, float], speed: float, eta: float) -> str:
    """`step 400/4950  8.1%  loss 1.2345  accuracy 0.551  lr 0.412  3,412 samples/s  eta 2:13`"""
    shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    return f"step {step}/{steps}  {100 * step / steps:.1f}%  {shown}  {speed:,.0f} samples/s  eta {duration(eta)}"


def told_line(step: int, steps: int, metrics: dict[str, float], eta: float) -> str:
    """The same of a program that says nothing of samples."""
    shown = "".join(f"{name} {value:.4g}  " for name, value in metrics.items())
    return f"step {step}/{steps}  {100 * step / steps:.1f}%  {shown}eta {duration(eta)}"


def parse(line: str) -> Progress | None:
    match = _LINE.fullmatch(line.rstrip())
    return Progress(int(match[1]), int(match[2]), match[3]) if match else None


def duration(seconds: float) -> str:
    """`2:13`, `1:02:13`, `3d 01:02:13`."""
    whole = max(0, round(seconds))
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02d}:{minutes:02d}:{secs:02d}"
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"
