"""The documentation names what there is."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from helpers import REPO

from launcher.config.config import TrainConfig

DOCS = [REPO / "README.md", REPO / "CHANGELOG.md", *REPO.glob("docs/*.md"), *REPO.glob("slurm/*.md"), *REPO.glob("benchmarks/*.md")]
KEYS = {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_test_that_is_named_is_there(path: Path) -> None:
    named = set(re.findall(r"\btest_\w+\.py", path.read_text()))
    assert named <= {test.name for test in (REPO / "tests").rglob("test_*.py")}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_key_of_train_that_is_named_is_there(path: Path) -> None:
    assert set(re.findall(r"`train\.(\w+)", path.read_text())) <= KEYS


def test_a_command_of_the_table_picks_a_test() -> None:
    for name, word in re.findall(r"tests/([\w/]*test_\w+\.py) -k (\w+)", (REPO / "docs" / "reliability.md").read_text()):
        tests = re.findall(r"^def (test_\w+)", (REPO / "tests" / name).read_text(), re.MULTILINE)
        assert any(word in test for test in tests), f"{name} -k {word}"
