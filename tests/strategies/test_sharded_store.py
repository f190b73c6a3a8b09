"""What the store promises is kept where each rank has pieces of a model: fsdp over two processes, killed, torn, flipped, fenced."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import events, finish, losses
from split_runs import trained, words
from store_ranks import ask, ranks
from test_crash import PLACES, kill_often, overlap_often
from test_kill import shards

from launcher.train.checkpoint.crash import POINTS
from launcher.train.checkpoint.manifest import by_step

SEED = 20261127
pytestmark = [pytest.mark.slow, pytest.mark.chaos]


def newest(folder: Path) -> Path:
    return by_step(folder / "checkpoints")[0][1]


def untouched(folder: Path, step: int) -> dict[str, str]:
    """What a run that nobody disturbs has saved at that step."""
    folder.mkdir()
    with ranks(folder) as process:
        told = ask(process, folder=str(folder), attempt=0, sharded=True, saves=step)
    assert told["saved"] == [step, step], told
    return shards(folder)


@pytest.mark.timeout(600)
def test_killed_at_every_point_on_either_rank_it_ends_equal_to_the_bit(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    kills = many(len(PLACES), 100, 200)
    assert set(kill_often(killed, kills, sharded=True)) == set(PLACES)
    step = by_step(killed / "checkpoints")[0][0]
    assert shards(killed) == untouched(tmp_path / "whole", step)
    print(f"fsdp(2): {kills} kills at {len(PLACES)} places, equal to the bit at step {step}")


@pytest.mark.timeout(300)
def test_an_attempt_taken_for_dead_writes_nothing_more(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    overlaps = many(len(POINTS), 28, 42)
    assert overlap_often(tmp_path, overlaps, sharded=True) >= overlaps // 2


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def tear(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("damage", [flip, tear])
def test_a_piece_of_any_rank_that_is_damaged_costs_one_checkpoint_and_no_bit(tmp_path: Path, damage: Callable[..., None]) -> None:
    """Each file of rank 1 in turn, and rank 0's weights: the checkpoint before is loaded, and the run comes to the same end."""
    run, draw = tmp_path / "run", random.Random(SEED)
    run.mkdir()
    whole = untouched(tmp_path / "whole", 12)
    with ranks(run) as process:
        ask(process, folder=str(run), attempt=0, sharded=True, saves=12)
        names = [path.name for path in newest(run).iterdir() if ".1." in path.name or path.name.startswith("rank_1.")]
        assert {"model.1.safetensors", "optimizer.1.safetensors", "ema.1.safetensors", "rank_1.json"} <= set(names)
        for attempt, name in enumerate([*names, "model.safetensors"], 1):
            damage(newest(run) / name, draw)
            told = ask(process, folder=str(run), attempt=attempt, sharded=True, saves=1, passes=1)
            assert (told["errors"], told["loaded"], told["saved"]) == ([], [11, 11], [12, 12]), name
            assert shards(run) == whole, name


@pytest.mark.timeout(300)
def test_a_run_whose_rank_1_died_in_a_save_and_whose_newest_piece_is_flipped_ends_as_if_nothing_was(tmp_path: Path) -> None:
    """Through the launcher: it says what it passes over, and the losses and the last checkpoint are those of a run that nobody touched."""
    saves = ("train.steps=30", "train.save_every=4", "cluster.requeue=false")
    whole = trained(tmp_path, "whole", "fsdp(2)", *saves)
    run = whole.with_name("killed")
    died = finish(tmp_path, words(tmp_path, "killed", "fsdp(2)", *saves), timeout=100, LAUNCHER_CRASH_AT="before_fsync:1:13")
    assert died.returncode == 1, died.stderr
    assert newest(run).name == "step_000000008", "in the third save"
    flip(newest(run) / "model.1.safetensors", random.Random(SEED))
    damaged = newest(run).name
    done = finish(tmp_path, ["resume", str(run)], timeout=100)
    assert done.returncode == 0, done.stderr
    assert f"checkpoint {damaged} is damaged and passed over: " in done.stdout
    assert "model.1.safetensors does not have the sha256 it was written with" in done.stdout
    assert [event["step"] for event in events(run, "started")][1] == int(damaged[5:]) - 4
    assert losses(run) == losses(whole)
    assert shards(run) == shards(whole)
