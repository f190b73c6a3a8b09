"""An attempt that resumes knows what the one before it knew: what is saved, what is frozen, what was compared, what is usual."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import claimed
from processes import events, finish, kill_tree, lines, losses, start, toy_words, wait_for
from safetensors.torch import load_file
from test_kill import shards
from torch import nn

from launcher.plan import Mesh
from launcher.strategies import draws
from launcher.train import seeds
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.manifest import verify
from launcher.train.evaluate import evaluating
from launcher.train.guard.guard import HISTORY, BadNumbers, Guard
from launcher.train.guard.replicas import Replicas
from launcher.train.record.clock import Clock
from launcher.train.world.ranks import Ranks

SEED = 20261126
EVERY, AFTER = 20, 5
"""Steps between saves; how long after one a kill comes, and before the jump."""


def kill_at(home: Path, words: list[str], run: Path, step: int, **extra: str) -> None:
    """Start, and kill everything once that step's line is there."""
    process = start(home, words, TOY_STEP_SECONDS="0.03", **extra)
    try:
        wait_for(lambda: max(losses(run), default=0) >= step, what=f"step {step}")
    finally:
        kill_tree(process)


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_what_is_judged_by_the_past_is_judged_alike_after_a_kill(tmp_path: Path, many: Callable[[int, int, int], int]) -> None:
    """Going back is wanted, a layer is frozen, a bit flips in each attempt, in the last one a loss jumps too. Killed before the second
    checkpoint, and then soon after others: so soon that all the guards go by is from before the kill."""
    rng, kills = random.Random(SEED), many(1, 12, 40)
    start_of_last = EVERY * kills
    jump = start_of_last + AFTER
    words = (
        "cluster.processes_per_node=2", "model._target_=toyproject.net.Frozen", f"train.steps={start_of_last + EVERY}",
        f"train.save_every={EVERY}", "train.eval_every=15", "train.layers_every=5", "train.compare_every=10", "train.on_bad=rollback",
        "train.max_rollbacks=99", "train.spike=5", f"loader.poison=[{jump - 1},-1000]",
    )  # fmt: skip
    whole, run = (tmp_path / "runs" / "toy" / name for name in ("whole", "killed"))
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=whole", *words), timeout=400)
    assert done.returncode == 0, done.stderr
    assert [(event["step"], event["to"]) for event in events(whole, "rolled_back")] == [(jump, start_of_last)]

    kill_at(tmp_path, toy_words(tmp_path / "runs", "id=killed", *words), run, rng.randint(2, 10))
    for saved in range(0, start_of_last, EVERY):
        flip = saved + rng.randint(2, 9), rng.randrange(2)
        kill_at(tmp_path, ["resume", str(run)], run, saved + EVERY + rng.randint(1, 4), TOY_FLIPS=json.dumps([flip]))
    done = finish(tmp_path, ["resume", str(run)], timeout=400, TOY_FLIPS=json.dumps([(jump + 2, 1)]))
    assert done.returncode == 0, done.stderr

    assert losses(run) == losses(whole)
    assert shards(run) == shards(whole)
    back = events(run, "rolled_back")
    assert all(event["to"] % EVERY == 0 and event["step"] - event["to"] <= 10 for event in back), "to the checkpoint just before"
    flipped = [event for event in back if "no longer hold the same weights" in event["why"]]
    assert len(flipped) == kills + 1
    tensors = [load_file(max((run / "checkpoints").glob("step_*")) / f"rank_{rank}.safetensors") for rank in range(2)]
    assert not tensors[0]["buffer|body.1.running_mean"].any(), "frozen"
    began = [int.from_bytes(bytes(each["generator|cpu"][:8].tolist()), "little") for each in tensors]
    assert began == [seeds.of_coordinate(0, Mesh(2).at(rank)) for rank in range(2)], "torch keeps the seed that a generator began with"
    print(f"seed {SEED}: {kills + 1} kills, {len(flipped)} flips, {len(back)} times back, equal")


@pytest.mark.slow
def test_the_first_line_after_a_resume_claims_no_step_that_another_attempt_did(tmp_path: Path) -> None:
    """One line of 20 steps; 15 of them were done before the crash."""
    words = ("id=a", "train.steps=20", "train.log_every=20", "train.save_every=15", "loader.fault=[19,abort]")
    done = finish(tmp_path, toy_words(tmp_path / "runs", *words), TOY_STEP_SECONDS="0.1")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "toy" / "a"
    assert [event["step"] for event in events(run, "started")] == [0, 15]
    (line,) = (line for line in lines(run / "metrics.jsonl") if line["split"] == "train")
    assert line["step_seconds"] >= 0.1
    assert line["samples_per_second"] <= 64 / 0.1
    assert line["data_seconds"] >= 0.1


def test_a_lap_counts_the_updates_that_were_made_in_it() -> None:
    clock = Clock()
    for number in range(1, 8):
        clock.ready(clock.asked)
        if number in (3, 7):
            assert clock.lap().updates == {3: 3, 7: 4}[number]
    clock.ready(clock.asked)
    clock.restart()
    assert clock.lap().updates == 0


# ---------------------------------------------------------------- what is on the disk already


def test_a_step_that_is_there_is_not_written_over_itself(tmp_path: Path) -> None:
    """By a new store, as a new attempt has; a damaged one is replaced, and what it held is kept aside."""
    for attempt in range(3):
        store = CheckpointStore(tmp_path / "checkpoints", Ranks(0, 1), claimed(tmp_path, attempt), attempt, 2)
        store.save(0, {"state.json": (b"%d" % attempt,)})
        assert (store.path / "step_000000000" / "state.json").read_bytes() == b"0"
        assert [path.name for path in store.path.iterdir()] == ["step_000000000"]
    (store.path / "step_000000000" / "state.json").write_bytes(b"?")
    store.save(0, {"state.json": (b"new",)})
    assert verify(store.path / "step_000000000").read("state.json") == b"new"
    assert (store.path / "aside_step_000000000.0" / "state.json").read_bytes() == b"?"


def test_what_is_known_to_be_good_outlives_what_is_not_yet(tmp_path: Path) -> None:
    """Saves that come quicker than lines: the loss of a step is judged when more checkpoints than are kept came after it."""
    store = CheckpointStore(tmp_path / "checkpoints", Ranks(0, 1), claimed(tmp_path), 0, 2)
    for step in range(10, 100, 10):
        store.save(step, {"a": (b"x",)}, step - step % 50)
    assert [path.name for path in sorted(store.path.iterdir())] == ["step_000000050", "step_000000080", "step_000000090"]
    found = store.load(print, newest=50)
    assert found is not None
    assert found.step == 50


def test_where_nothing_is_before_the_fault_nothing_spoilt_is_left_either(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", Ranks(0, 1), claimed(tmp_path), 0, 2)
    for step in (10, 20):
        store.save(step, {"a": (b"x",)})
    assert store.load(print, newest=5) is None
    assert store.load(print) is None
    assert sorted(path.name for path in store.path.iterdir()) == ["aside_step_000000010.0", "aside_step_000000020.0"]


# ---------------------------------------------------------------- what was compared, what is usual


class Unlike(Ranks):
    """Two ranks of which this one's answer is changed for the other."""

    def __init__(self) -> None:
        self.rank, self.members, self.group, self.flipped = 0, (0, 1), None, False

    def gather(self, value: Any) -> list[Any]:
        return [value, ({name: number ^ int(self.flipped) for name, number in value[0].items()}, *value[1:])]


def test_weights_are_compared_before_they_are_saved_and_known_as_equal_after_they_are_read() -> None:
    ranks, weights = Unlike(), [torch.ones(3)]
    replicas = Replicas(lambda: {"weights": weights}, ranks, 1000)
    replicas.compare(30)
    replicas.follow(31)
    ranks.flipped = True
    with pytest.raises(BadNumbers, match="after step 30 and by step 60") as bad:
        replicas.compare(60)
    assert (bad.value.since, bad.value.until) == (30, 60)
    resumed = Replicas(lambda: {"weights": weights}, ranks, 1000)
    resumed.begin_at(30)
    resumed.compare(30)
    with pytest.raises(BadNumbers) as bad:
        resumed.compare(45)
    assert bad.value.since == 30


def test_a_jump_is_one_after_a_resume_too() -> None:
    before, after = Guard(5), Guard(5)
    for step in range(HISTORY + 3):
        before.judge(1.0 + step, step, step + 1)
    after.judge(1e9, 0, 1)  # forgotten below
    after.remember(json.loads(json.dumps(before.losses())))
    assert after.losses() == before.losses()
    for guard in (before, after):
        with pytest.raises(BadNumbers):
            guard.judge(90.0, 23, 24)


# ---------------------------------------------------------------- what is frozen


class Adapter(nn.Module):
    """Merges what it learned into its weight while it evaluates, as LoRA layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.learned = torch.ones(1), torch.ones(1)

    def train(self, mode: bool = True) -> Adapter:
        if mode != self.training:
            self.weight = self.weight - self.learned if mode else self.weight + self.learned
        return super().train(mode)


class Stubborn(nn.BatchNorm1d):
    """Never trains, whoever asks."""

    def train(self, mode: bool = True) -> Stubborn:
        return super().train(False)


def test_each_module_is_in_its_own_mode_again() -> None:
    inside = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))
    model = nn.ModuleDict({"frozen": nn.Sequential(nn.Dropout(), inside), "adapter": Adapter(), "norm": Stubborn(2).train()})
    model["frozen"].eval()
    inside[0].train()  # a dropout that stays on within what is frozen
    modes = {name: module.training for name, module in model.named_modules()}
    assert len(set(modes.values())) == 2
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert model["adapter"].weight == 2
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert model["adapter"].weight == 1


# ---------------------------------------------------------------- seeds


def test_no_two_neighbours_share_a_seed() -> None:
    places = [Mesh(10, 2, cp=2).at(rank) for rank in range(40)]
    drawn = {seeds.of_coordinate(seed, place, step) for seed in range(40) for place in places for step in (0, 1, 100)}
    assert len(drawn) == 40 * 40 * 3
    assert min(drawn) > 10_000, "nor one with anybody's weights, whose seeds are small numbers"
    assert max(drawn) < 2**63
    for within in (Mesh(tp=2), Mesh(pp=2)):
        assert seeds.of_coordinate(0, within.at(0)) == seeds.of_coordinate(0, within.at(1)), "a task draws the same for parts and stages"


@pytest.mark.parametrize("apart", [1, 2**32, 2**62])
def test_seeds_that_differ_anywhere_differ_in_every_generator(apart: int) -> None:
    drawn = []
    for seed in (3, 3 + apart):
        draws.plant(seeds.of_weights(seed))
        drawn.append((random.random(), float(torch.rand(())), float(np.random.random())))
    assert all(not math.isclose(one, other) for one, other in zip(*drawn, strict=True))
