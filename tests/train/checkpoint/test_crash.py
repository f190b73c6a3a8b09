"""SIGKILL at every named point of a save and a prune, on either rank: some checkpoint always verifies, and none that was saved is lost."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from store_ranks import SAVES, ask, ranks, writer

from launcher.train.checkpoint.crash import POINTS
from launcher.train.checkpoint.manifest import verify

SEED = 20261121
FIRST_ONLY = {"room_made", "in_manifest", "before_rename", "after_rename", "after_commit", "before_prune", "in_prune", "after_prune"}
"""Rank 0 alone comes to these."""
PLACES = [(point, rank) for point in POINTS for rank in (0, 1) if rank == 0 or point not in FIRST_ONLY]


def kill_often(folder: Path, kills: int, **what: bool) -> dict[tuple[str, int], int]:
    """One run of `kills` attempts, each ended at one of the points in turn. Returns how often at which; a loss is an AssertionError.
    `what`: `naive` or `sharded`, of store_ranks."""
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    seen: dict[tuple[str, int], int] = {}
    known = -1
    with ranks(folder) as process:
        for attempt in range(kills):
            point, rank = PLACES[attempt % len(PLACES)]
            crash = f"{point}:{rank}:{rng.randint(1, 3)}"
            told = ask(process, folder=str(folder), attempt=attempt, crash=crash, **what)
            assert not told["errors"], f"attempt {attempt}, after {crash}: {told['errors']}"
            assert told["died"] == [rank], f"nobody came to {crash}: {told}"
            seen[point, rank] = seen.get((point, rank), 0) + 1
            assert min(told["loaded"]) >= known, f"attempt {attempt} lost step {known}: it loaded {told['loaded']}"
            known = max(known, *told["saved"])
            if known > 0 and not what.get("naive"):
                assert _verified(folder), f"no checkpoint verifies after {crash}"
        told = ask(process, folder=str(folder), attempt=kills, **what)
        assert told["died"] == []
        assert told["saved"] == [max(told["loaded"][0], 0) + SAVES] * 2
    return seen


def _verified(folder: Path) -> int:
    return sum(verify(path).step > 0 for path in (folder / "checkpoints").glob("step_*"))


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_every_point_on_every_rank(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    seen = kill_often(tmp_path, many(2 * len(PLACES), 200, 400))
    assert set(seen) == set(PLACES)
    print(f"{sum(seen.values())} kills at {len(seen)} places, nothing lost")


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_an_attempt_taken_for_dead_that_goes_on_in_the_middle_of_a_save(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    """It was stopped at a point; the next attempt has claimed the run, saved and ended; then it goes on."""
    overlaps = many(2 * len(POINTS), 30, 50)
    fenced = overlap_often(tmp_path, overlaps)
    print(f"{overlaps} overlaps: one writer each time; the old attempt ended with a message in {fenced}")
    assert fenced >= overlaps // 2


def overlap_often(folder: Path, overlaps: int, **what: bool) -> int:
    """Two writers is an AssertionError. Returns how many of the old attempts ended with a message. `what` as above."""
    rng, fenced = random.Random(SEED), 0
    with ranks(folder) as process:
        for number in range(overlaps):
            point = POINTS[number % len(POINTS)]
            crash = f"{point}:0:{rng.randint(1, 3)}:STOP"
            told = ask(process, folder=str(folder), attempt=2 * number, crash=crash, overlap=True, **what)
            assert told["errors"] == []
            newest = max((folder / "checkpoints").glob("step_*"))
            assert newest.name == f"step_{told['saved'][0]:09d}"
            assert told["saved"] == [max(told["loaded"][0], 0) + SAVES] * 2, point
            written = [writer(path if what.get("naive") else verify(path).path) for path in (folder / "checkpoints").glob("step_*")]
            assert set(written) == {2 * number + 1}, f"{point}: an old attempt wrote after the newer one had begun"
            fenced += any("has taken over" in error or "could not be written" in error for error in told["old"]["errors"])
    return fenced


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_store_without_the_guards_loses_something(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"is not what was saved|has no|No such file"):
        kill_often(tmp_path, 2 * len(PLACES), naive=True)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_without_the_guards_two_attempts_are_in_each_others_way(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"an old attempt wrote after the newer one had begun|No such file"):
        overlap_often(tmp_path, len(POINTS), naive=True)
