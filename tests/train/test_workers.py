"""A folder of pictures under loader=workers, trained by the real launcher on a bad night."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from processes import descendants, events, finish, kill_tree, losses, start, toy_words, wait_for

SEED = 20261127


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 pictures of noise of four sorts."""
    place, draw = tmp_path_factory.mktemp("home") / "pictures", np.random.default_rng(SEED)
    place.mkdir()
    for number in range(240):
        label = number % 4
        Image.fromarray((draw.integers(0, 120, (20, 20, 3)) + 40 * label).astype(np.uint8)).save(place / f"{label}_{number}.png")
    return place


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[int, float]:
    """The losses of the run that nobody disturbs and no worker helps."""
    done = finish(folder.parent, words(folder, "whole", "loader.num_workers=0"), timeout=120)
    assert done.returncode == 0, done.stderr
    return losses(folder.parent / "runs" / "toy" / "whole")


def words(folder: Path, name: str, *more: str) -> list[str]:
    asked = ["data=pictures", f"data.folder={folder}", "loader=workers", "loader.num_workers=2", "train.batch_size=16", "train.epochs=8"]
    return toy_words(folder.parent / "runs", f"id={name}", *asked, "train.save_every=7", "train.accumulate=2", *more)


def of_the_loader(process: object) -> list[psutil.Process]:
    """Workers, and who forks them."""
    found = [each for each in descendants(process.pid) if any("data.processes.nursery" in word for word in each.cmdline())]
    return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize("starts", [(20, 200), pytest.param((*range(8, 88, 8), 200), marks=pytest.mark.full)], ids=["1 kill", "10 kills"])
def test_killed_with_its_workers_it_ends_equal_to_the_bit_with_a_run_that_was_not(
    folder: Path, whole: dict[int, float], starts: tuple[int, ...]
) -> None:
    """`starts`: the step at which each attempt is killed, the last is not. In each a worker of the loader is killed before."""
    home, name = folder.parent, f"killed-{len(starts)}"
    run, draw = home / "runs" / "toy" / name, random.Random(SEED)
    assert len(whole) == 8 * 12
    seen: dict[int, set[float]] = {}
    for attempt, until in enumerate(starts):
        process = start(home, words(folder, name) if not attempt else ["resume", str(run)])
        try:
            wait_for(lambda number=attempt: len(events(run, "started")) == number + 1, what="the start")
            first = events(run, "started")[-1]["step"]
            wait_for(lambda first=first: max(losses(run), default=0) >= first + 3, what="a few steps")
            draw.choice(of_the_loader(process)).send_signal(signal.SIGKILL)
            if until < len(whole):
                wait_for(lambda step=until: max(losses(run), default=0) >= step, what=f"step {until}")
            else:
                _, err = process.communicate(timeout=120)
                assert process.returncode == 0, err
        finally:
            workers = of_the_loader(process) if process.poll() is None else []
            kill_tree(process)
        assert not any(each.is_running() for each in workers)
        for step, loss in losses(run).items():
            seen.setdefault(step, set()).add(loss)
    assert seen == {step: {loss} for step, loss in whole.items()}
    log = "".join(path.read_text() for path in run.glob("attempts/*/rank_0.log"))
    assert log.count("another one makes its batches once more") >= len(starts), "more where a worker was killed before its trainer"


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.usefixtures("no_process_left")
def test_a_run_that_is_asked_to_stop_stops_at_a_step_and_goes_on(folder: Path, whole: dict[int, float]) -> None:
    """TERM to all of its processes, as a preemption sends it."""
    run = folder.parent / "runs" / "toy" / "stopped"
    process = start(folder.parent, words(folder, "stopped"))
    try:
        wait_for(lambda: max(losses(run), default=0) >= 20, what="step 20")
        for each in [each for each in descendants(process.pid) if "RANK" in each.environ()]:
            each.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        kill_tree(process)
    assert events(run, "stopped"), err
    assert "another one makes" not in (run / "attempts" / "000" / "rank_0.log").read_text()
    done = finish(folder.parent, ["resume", str(run)])
    assert done.returncode == 0, done.stderr
    assert losses(run) == whole
