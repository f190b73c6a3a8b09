"""The worked examples of CONTRIBUTING.md, copied from there, train."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import Launch, run_dir
from worked_examples import of

SUMMARY = {
    "To add a model": 4,
    "To add a task": 2,
    "To add an optimizer": 4,
    "To add a strategy": 2,
    "To add a data set": 20,
    "To add an augmentation": 4,
}
"""Section -> steps."""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("section", SUMMARY)
def test_the_worked_example_trains(section: str, launch: Launch, tmp_path: Path) -> None:
    example = of(section)
    example.write(tmp_path)
    (words,) = example.commands
    done = launch(*words, f"runs_dir={tmp_path / 'runs'}", timeout=380)
    assert done.returncode == 0, done.stderr
    assert json.loads((run_dir(done) / "summary.json").read_text())["steps"] == SUMMARY[section]
    if section == "To add a data set":
        assert "data: no val of its own: 40 of 400 samples are held out, by seed (loader.val=0.1)" in done.stdout
