"""The data set of CONTRIBUTING.md, copied from there, trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import Launch, run_dir
from worked_examples import of


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_worked_example_is_a_data_set(launch: Launch, tmp_path: Path) -> None:
    example = of("To add a data set")
    example.write(tmp_path)
    exp = "myconf/exp/bars.yaml"
    (tmp_path / exp).write_text(example.files[exp].partition("\n")[2])
    (words,) = example.commands
    done = launch(*words, f"runs_dir={tmp_path / 'runs'}", timeout=280)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run_dir(done) / "summary.json").read_text())
    assert summary["samples"] == 640
    assert "data: no val of its own: 40 of 400 samples are held out, by seed (loader.val=0.1)" in done.stdout
