"""`evaluate` of a run on a disk that is full: a line, and nothing half-written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from processes import finish, needs_root, small_disk
from small_runs import SmallRuns


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("room", [0, 96 << 10], ids=["none", "a little"])
def test_a_line_says_so(small_runs: SmallRuns, tmp_path: Path, room: int) -> None:
    """Before its process starts, and when there are figures that have no place."""
    run = small_runs.trained("digits")
    with small_disk(tmp_path / "disk", "size=64m") as disk:
        copy = disk / "runs" / "digits" / "a"
        shutil.copytree(run, copy, symlinks=True, ignore=shutil.ignore_patterns("evaluation", "export"))
        before = _kept(copy)
        with (disk / "full").open("wb") as file:
            space = os.statvfs(disk)
            file.write(bytes(space.f_bavail * space.f_frsize - room))
        full = finish(tmp_path, ["evaluate", str(copy)], **small_runs.env)
        assert full.returncode == 3, full.stderr
        lines = [line for line in full.stderr.splitlines() if line.startswith("launcher: ")]
        assert len(lines) == 1, full.stderr
        assert "No space left on device" in lines[0]
        assert "Traceback" not in full.stderr
        assert _kept(copy) == before


def _kept(run: Path) -> dict[Path, int]:
    """Files, but for the logs of what failed."""
    return {path: path.stat().st_size for path in run.rglob("*") if path.is_file() and "jobs" not in path.parts}
