"""How much code a run may bring: more is data or results that somebody forgot to ignore."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from launcher.errors import ConfigError

MOST_BYTES = 64 * 2**20
"""Source is small: what is larger is data or results that somebody forgot to ignore, copied again with every run."""


def refuse_above_cap(sizes: Mapping[str, int]) -> None:
    """`sizes`: bytes by the name in the copy. Raises ConfigError, which names the largest."""
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest = ", ".join(f"{shown(name)} ({_mebibytes(size)})" for name, size in _largest(sizes))
        raise ConfigError(
            f"the code to be kept with the run has {_mebibytes(total)}, and {_mebibytes(MOST_BYTES)} is the most; the largest: {largest}; "
            "what is no code, add to .gitignore (and `git rm --cached` it if it is tracked), or move out of the project"
        )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _largest(sizes: Mapping[str, int]) -> list[tuple[str, int]]:
    """The three largest files or directories; what is in a directory instead of it, where three things are most of it."""
    totals, inside = Counter(sizes), defaultdict[str, set[str]](set)
    for name, size in sizes.items():
        while name:
            parent = name.rpartition("/")[0]
            totals[parent] += size
            inside[parent].add(name)
            name = parent

    def three(names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: (-totals[name], name))[:3]

    def opens(name: str) -> bool:
        return sum(totals[child] for child in three(inside[name])) >= 0.9 * totals[name]

    choice = inside.pop("")
    while folder := next((name for name in three(choice) if name in inside and opens(name)), ""):
        choice = choice - {folder} | inside[folder]
    shown = (name for name in three(choice) if totals[name] >= 0.01 * totals[""])
    return [(f"{name}/" if name in inside else name, totals[name]) for name in shown]


def shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)
