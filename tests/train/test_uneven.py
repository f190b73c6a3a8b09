"""A data set that is not the same in all processes is said before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import finish, lines, toy_words


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_length_that_differs_between_processes_ends_it_in_one_line(tmp_path: Path) -> None:
    words = ("data._target_=toyproject.uneven.Uneven", "id=a", "cluster.processes_per_node=2")
    done = finish(tmp_path, toy_words(tmp_path / "runs", *words), timeout=100)
    assert done.returncode == 3, done.stderr
    said = done.stderr.splitlines()[-1]
    assert "data: the processes have 639 and 640 samples to train on; which comes when hangs on how many there are" in said
    metrics = tmp_path / "runs" / "toy" / "a" / "metrics.jsonl"
    assert not metrics.exists() or not lines(metrics), "before the first step"
