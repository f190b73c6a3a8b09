"""Shards of pictures trained on by the real launcher, on a bad night and in other worlds."""

from __future__ import annotations

import io
import random
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import descendants, events, finish, kill_tree, losses, start, toy_words, wait_for
from test_workers import of_the_loader

SEED = 20261128


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """240 JPEGs of noise of four sorts, in five tars."""
    place, draw = tmp_path / "shards", np.random.default_rng(SEED)
    place.mkdir()
    for shard in range(5):
        with tarfile.open(place / f"train-{shard}.tar", "w") as tar:
            for number in range(48):
                label, file = number % 4, io.BytesIO()
                Image.fromarray((draw.integers(0, 120, (40, 40, 3)) + 40 * label).astype(np.uint8)).save(file, "jpeg")
                for kind, content in (("jpg", file.getvalue()), ("cls", str(label).encode())):
                    entry = tarfile.TarInfo(f"{number:03d}.{kind}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return place


def words(shards: Path, name: str, *more: str) -> list[str]:
    asked = ["data=webdataset", f"data.root={shards}", "data.size=16", "data.val=null", "data.test=null", "loader.test=0"]
    asked += ["loader=workers", "loader.num_workers=1", "loader.window=60", "train.batch_size=16", "train.epochs=8", "train.save_every=7"]
    return toy_words(shards.parent / "runs", f"id={name}", *asked, *more)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("no_process_left")
def test_killed_in_the_middle_of_epochs_it_ends_equal_to_the_bit(
    tmp_path: Path, shards: Path, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, ten times with --full; a worker of the loader first, then all."""
    monkeypatch.setenv("LAUNCHER_CACHE", str(tmp_path / "cache"))
    assert (whole := finish(tmp_path, words(shards, "whole"), timeout=120)).returncode == 0, whole.stderr
    wanted, run, draw = losses(tmp_path / "runs" / "toy" / "whole"), tmp_path / "runs" / "toy" / "killed", random.Random(SEED)
    kills = 10 if full else 2
    seen: dict[int, set[float]] = {}
    for attempt in range(kills):
        process = start(tmp_path, words(shards, "killed") if not attempt else ["resume", str(run)])
        try:
            wait_for(lambda number=attempt: len(events(run, "started")) == number + 1, what="the start")
            first = events(run, "started")[-1]["step"]
            wait_for(lambda first=first: max(losses(run), default=0) >= first + 2, what="a few steps")
            draw.choice(of_the_loader(process)).send_signal(signal.SIGKILL)
            until = first + max(4, (len(wanted) - first) // (kills + 1 - attempt))
            wait_for(lambda step=until: max(losses(run), default=0) >= step, what=f"step {until}")
        finally:
            kill_tree(process)
        for step, loss in losses(run).items():
            seen.setdefault(step, set()).add(loss)
    assert (done := finish(tmp_path, ["resume", str(run)], timeout=120)).returncode == 0, done.stderr
    for step, loss in losses(run).items():
        seen.setdefault(step, set()).add(loss)
    assert seen == {step: {loss} for step, loss in wanted.items()}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_process_left")
def test_two_processes_then_one_then_four_learn_what_one_does(tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which samples an update has is held in tests/data/test_data_damaged.py; here that a run goes through it."""
    monkeypatch.setenv("LAUNCHER_CACHE", str(tmp_path / "cache"))
    # Without BatchNorm, whose statistics are of a process's own share, and without dropout, which each rank draws for itself.
    more = ("train.epochs=2", "loader.num_workers=0", "model=mlp", "model.in_features=768", "model.num_classes=4")
    assert (whole := finish(tmp_path, words(shards, "whole", *more), timeout=120)).returncode == 0, whole.stderr
    wanted, run = losses(tmp_path / "runs" / "toy" / "whole"), tmp_path / "runs" / "toy" / "moved"
    for world, until in ((2, 9), (1, 16), (4, len(wanted))):
        moved = f"cluster.processes_per_node={world}"
        process = start(tmp_path, words(shards, "moved", *more, moved) if world == 2 else ["resume", str(run), moved])
        try:
            if until < len(wanted):
                wait_for(lambda step=until: max(losses(run), default=0) >= step, what=f"step {until}")
                for each in [each for each in descendants(process.pid) if "RANK" in each.environ()]:
                    each.send_signal(signal.SIGTERM)
            process.communicate(timeout=100)
        finally:
            kill_tree(process)
    assert losses(run) == pytest.approx(wanted, rel=1e-4)
