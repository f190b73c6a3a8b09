"""What every benchmark here shares: the statistics of interleaved blocks, and the machine they ran on."""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

RESAMPLES = 5000


@dataclass(frozen=True)
class Paired:
    """The median over rounds of some quantity of two contenders, with its bootstrap 95 % interval."""

    median: float
    low: float
    high: float
    n: int

    def as_ratio(self) -> str:
        return f"{self.median:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def as_number(self) -> str:
        return f"{self.median:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def bootstrap(values: Sequence[float]) -> Paired:
    """Median of `values` and the percentile interval of the medians of resamples; the generator is seeded, so it repeats."""
    values, draw = list(values), random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return Paired(statistics.median(values), medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)], len(values))


def ratios(above: Sequence[float], below: Sequence[float]) -> Paired:
    """The contenders of one round ran within the same second: what else the machine did falls out of their ratio."""
    return bootstrap([a / b for a, b in zip(above, below, strict=True)])


def rotated(names: Sequence[str], round_number: int) -> list[str]:
    """The order of one round: nobody is always first, nobody always behind the same neighbour's caches."""
    shift = round_number % len(names)
    order = [*names[shift:], *names[:shift]]
    return order[::-1] if round_number // len(names) % 2 else order


def names_of(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    """The type of an option that takes some of these names, with commas between."""

    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if wrong := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{wrong[0]} is none of: {', '.join(known)}")
        return names

    return parse


def export_and_folder(told: str | None, rounds: int) -> argparse.Namespace:
    """What is typed behind a benchmark of an exported model: `export`, `folder` (of pictures), `rounds`."""
    parser = argparse.ArgumentParser(description=told, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=rounds)
    return parser.parse_args()


def machine() -> dict[str, str]:
    """CPU, cores, governor where it can be read, load."""
    governor = _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not readable"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {"CPU": _cpu_model(), "cores": str(cores), "governor": governor, "system": f"{platform.system()} {platform.release()}"}


def load() -> str:
    """Load averages over 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "not readable"


def versions(*packages: str) -> dict[str, str]:
    """Python, the launcher of this tree, and the packages named."""
    from launcher import __version__

    return {"python": platform.python_version(), "launcher": __version__, **{name: metadata.version(name) for name in packages}}


def one_line(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it reads well in a terminal too."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return ""
