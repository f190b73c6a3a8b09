"""The table at the end of a run."""

from __future__ import annotations

from pathlib import Path

from launcher.rundir.rundir import RunDir
from launcher.start.report import closing


def test_a_long_name_stands_apart_from_its_number(tmp_path: Path) -> None:
    rows = closing(RunDir(tmp_path), {"test_mean_absolute_percentage_error": 0.25, "test_loss": 0.5}).splitlines()
    assert rows[0] == "test mean absolute percentage error  0.2500"
    assert {row.index(value) for row, value in zip(rows, ("0.2500", "0.5000"), strict=False)} == {37}
