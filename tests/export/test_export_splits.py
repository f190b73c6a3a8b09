"""One set of weights, checkpointed by one process and then by every way to split it, is exported as the same file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from processes import finish
from split_runs import moved_to, trained

from launcher.train.checkpoint.manifest import by_step

STILL = ("schedule=step", "schedule.milestones=[0.5]", "schedule.gamma=0", "train.steps=8", "train.save_every=2", "train.keep=9")
"""From the fourth update on the rate is 0: what is saved then is the same whoever saves it."""


def export(home: Path, run: Path) -> bytes:
    done = finish(home, ["export", str(run), "onnx=false"], timeout=100)
    assert done.returncode == 0, done.stderr
    return (Path(done.stdout.splitlines()[-1]) / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_weights_of_every_split_are_equal_to_the_bit(tmp_path: Path, full: bool) -> None:
    one = trained(tmp_path, "one", "one", *STILL)
    wanted = export(tmp_path, one)
    for split in ("ddp(2)", "fsdp(2)", "tp(2)", "pp(2)") if full else ("pp(2)",):
        copy = one.with_name(split.replace("(", "-").strip(")"))
        shutil.copytree(one, copy, symlinks=True, ignore=shutil.ignore_patterns("export", "summary.json"))
        for step, path in by_step(copy / "checkpoints"):
            if step > 4:
                shutil.rmtree(path)
        done = finish(tmp_path, ["resume", str(copy), *moved_to(split)], timeout=100)
        assert done.returncode == 0, done.stderr
        assert json.loads((copy / "summary.json").read_text())["state"] == "done"
        assert export(tmp_path, copy) == wanted, split
        print(f"{split}: {len(wanted):,} bytes, all equal")
