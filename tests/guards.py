"""A guard of docs/security.md: where it stands, what the code would be without it, and which tests are red then.

The tables are guards_of_text.py, guards_of_places.py, guards_of_runs.py and guards_of_keys.py. `make guards` takes each out in a copy of
the tree (tests/guards_out.py); `test_guards.py` sees to it that no row goes stale. Where guards stand one behind the other, a row takes
out all of them: one alone is not missed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent


class Cut(NamedTuple):
    file: str
    text: str
    """As it is in the file, once."""
    instead: str


class Guard(NamedTuple):
    door: int
    """As docs/security.md numbers what may not be."""
    what: str
    cuts: tuple[Cut, ...]
    tests: tuple[str, ...]
    """Each is red without it. `config::x` is tests/trust/test_trust_config.py::test_x."""


def node_id(test: str) -> str:
    """As pytest has it."""
    module, _, rest = test.partition("::")
    name = f"{module if module.startswith('test_') else f'test_trust_{module}'}.py"
    return f"{next(TESTS.rglob(name)).relative_to(TESTS.parent)}::test_{rest}"


def guard(door: int, what: str, *parts: Cut | str) -> Guard:
    return Guard(door, what, tuple(part for part in parts if isinstance(part, Cut)), tuple(part for part in parts if isinstance(part, str)))
