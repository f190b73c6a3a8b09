"""No row of `make guards` or `make mutants` is stale: what it takes out is there, what it leaves is a program, and its tests are tests."""

from __future__ import annotations

import ast
import functools

import pytest
import split_mutants
from guards import Guard, node_id
from guards_out import GUARDS, REPO, without

DOORS = {*range(1, 15)}
"""As docs/security.md numbers what may not be."""


@functools.cache
def _functions(file: str) -> frozenset[str]:
    tree = ast.parse((REPO / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("guard", [*GUARDS, *split_mutants.GUARDS], ids=lambda guard: f"{guard.door}: {guard.what}")
def test_what_a_row_takes_out_is_there_once(guard: Guard) -> None:
    for file in {cut.file for cut in guard.cuts}:
        text = (REPO / file).read_text(encoding="utf-8")
        cut = without(guard, file, text)
        assert cut != text
        if file.endswith(".py"):
            ast.parse(cut)
    for test in guard.tests:
        file, _, rest = node_id(test).partition("::")
        assert rest.partition("[")[0] in _functions(file), test


def test_every_door_has_guards() -> None:
    assert {guard.door for guard in GUARDS} == DOORS
    assert len({guard.what for guard in GUARDS}) == len(GUARDS)
    assert all(guard.cuts and guard.tests for guard in GUARDS)
