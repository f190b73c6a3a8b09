"""What schedulers leave in an environment and in a working directory, as each cluster declares it: launcher/clusters/*/traces.json.

Whoever has to know it (what is secret, what is no code, who started this process) is asked long before a cluster is chosen, or where none
is. So it is data, which costs no import of the cluster's code:

    variables   how names of its variables begin, which say what the machine is like and are no secret
    printed     a pattern of the files that its jobs print into where they were submitted
    starters    what starts several processes at once: its name, the variable that only those have, and in which they read how many they
                are, which one each is, and how many of them are on this node; and which they have where a person types to the first
    room        the variables that tell the number of an allocation to whoever is in it, how many nodes that has, and to which of them this
                shell belongs; and what one types to have it
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_CLUSTERS = Path(__file__).resolve().parents[1] / "clusters"


class Starter(NamedTuple):
    name: str
    mark: str
    """RANK alone may be left over from a shell."""
    size: tuple[str, ...]
    rank: tuple[str, ...]
    here: tuple[str, ...]
    """How many on this node."""
    terminal: str = ""
    """There where only the first of them has a terminal, at which a person types."""


class Room(NamedTuple):
    """What is there for who is in it."""

    number: str
    nodes: str
    node: str
    """Its name; not there on a login node."""
    words: str


def variables() -> list[str]:
    return [each for found in _declared() for each in found["variables"]]


def printed() -> list[str]:
    return [found["printed"] for found in _declared()]


def starters() -> list[Starter]:
    raw = [each for found in _declared() for each in found["starters"]]
    return [_starter(**each) for each in raw]


def _starter(size: Sequence[str], rank: Sequence[str], here: Sequence[str], **words: str) -> Starter:
    return Starter(size=tuple(size), rank=tuple(rank), here=tuple(here), **words)


def rooms() -> list[Room]:
    return [Room(**found["room"]) for found in _declared()]


@functools.cache
def _declared() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(_CLUSTERS.glob("*/traces.json"))]
