"""Numbers that go bad are met under every split as they are by one process: the same update is left out, the same batches passed over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import events, finish, lines, toy_words
from split_runs import SPLITS

NET = (
    "model=resnet8",
    "model.groups=4",
    "model.num_classes=4",
    "model.width=8",
    "optim=adamw",
    "optim.lr=1e-3",
)
POISONED = ("train.steps=24", "train.log_every=1", "train.save_every=5", "loader.poison=[12,null]", "train.layers_every=5")
NEAR = 1e-4
"""AdamW moves what has hardly a gradient by its sign."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("on_bad", ["skip", "rollback"])
def test_what_goes_bad_is_left_out_on_all_ranks(tmp_path: Path, on_bad: str) -> None:
    found: dict[str, dict[int, float]] = {}
    for split in ("one", "fsdp(2)", "pp(2)"):
        name = split[:2]
        done = finish(
            tmp_path, toy_words(tmp_path / "runs", f"id={name}", *NET, *POISONED, f"train.on_bad={on_bad}", *SPLITS[split]), timeout=100
        )
        assert done.returncode == 0, done.stderr
        run = tmp_path / "runs" / "toy" / name
        found[split] = {line["step"]: line["loss"] for line in lines(run / "metrics.jsonl") if line["split"] == "train" and "loss" in line}
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["skipped_updates"], summary["rollbacks"]) == ((1, 0) if on_bad == "skip" else (0, 1)), split
        assert [event["step"] for event in events(run, "skipped")] == ([13] if on_bad == "skip" else [])
    one = found.pop("one")
    for split, got in found.items():
        assert got.keys() == one.keys(), split
        assert max(abs(got[step] - one[step]) / one[step] for step in one) <= NEAR, split
