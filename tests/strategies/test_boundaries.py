"""Documents that are kept apart: every split trains what one process trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import finish, losses
from split_runs import TEXT, finished, words

NEAR = 1e-5


def trained(home: Path, name: str, split: str) -> dict[int, float]:
    """Four or five documents in each window."""
    path = home / "york.jsonl"
    path.write_text("".join(json.dumps({"text": TEXT[begin : begin + 7 + begin % 5]}) + "\n" for begin in range(0, 3000, 7)))
    more = ("train.steps=12", f"data.path={path}", "data.boundaries=true", "data.validation=0.05")
    return losses(finished(finish(home, words(home, name, split, *more), timeout=100, LAUNCHER_CACHE=str(home / "cache")), home, name))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_documents_that_are_kept_apart_are_so_under_every_split(tmp_path: Path, full: bool) -> None:
    """With --full the two as well that leave a sequence whole, and in one place."""
    one = trained(tmp_path, "one", "one")
    for number, split in enumerate(("pp(2)", "cp(2)", *(("fsdp(2)", "tp(2)") if full else ()))):
        got = trained(tmp_path, f"split-{number}", split)
        difference = max(abs(got[step] - one[step]) / one[step] for step in one)
        print(f"{split}: at most {difference:.1e} from one process, over 12 steps with data.boundaries=true")
        assert got.keys() == one.keys()
        assert difference <= NEAR
