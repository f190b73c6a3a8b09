"""What any split has saved every other goes on with: weights, averages, what the optimizer remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from processes import finish, lines, losses
from split_runs import moved_to, trained

PAIRED = ("one", "ddp(2)", "fsdp(2)", "fsdp(4)", "tp(2)", "tp x fsdp(2x2)", "pp(2)")
NEAR = 1e-5
HALF, ALL = 10, 16


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", PAIRED)
def test_every_other_goes_on_from_its_checkpoint(tmp_path: Path, first: str) -> None:
    whole = trained(tmp_path, "whole", first, f"train.steps={ALL}", f"train.save_every={HALF}", "train.keep=5")
    expected, average = losses(whole), evaluated(whole)
    (whole / "summary.json").unlink()
    shutil.rmtree(whole / "checkpoints" / f"step_{ALL:09d}")
    for second in PAIRED:
        run = whole.with_name("other")
        shutil.copytree(whole, run)
        done = finish(tmp_path, ["resume", str(run), *moved_to(second)], timeout=200)
        assert done.returncode == 0, done.stderr
        got = losses(run)
        assert f"resumed from step_{HALF:09d}" in (run / "attempts" / "001" / "rank_0.log").read_text()
        difference = max(abs(got[step] - expected[step]) / expected[step] for step in range(HALF + 1, ALL + 1))
        of_average = abs(evaluated(run) - average) / average
        print(f"{first} -> {second}: losses within {difference:.1e}, of the average {of_average:.1e}")
        assert max(difference, of_average) <= NEAR
        shutil.rmtree(run)


def evaluated(run: Path) -> float:
    """The last loss of an evaluation, which has the average of the weights."""
    return [line["loss"] for line in lines(run / "metrics.jsonl") if line["split"] == "val"][-1]
