"""Every way to split a model trains what one process trains (docs/strategies.md has the table)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import events, finish, kill_tree, losses, running, wait_for
from split_runs import SPLITS, trained, words
from test_kill import shards

from launcher.train.checkpoint.manifest import by_step, verify

NEAR = 1e-5
"""Of a loss, relative: sums over ranks are made in another order."""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of 50 steps of one process."""
    return losses(trained(tmp_path_factory.mktemp("one"), "one", "one", "train.steps=50"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("split", [name for name in SPLITS if name != "one"])
def test_its_losses_are_those_of_one_process(tmp_path: Path, one: dict[int, float], split: str) -> None:
    run = trained(tmp_path, "split", split, "train.steps=50")
    got = losses(run)
    assert got.keys() == one.keys()
    difference = max(abs(got[step] - one[step]) / one[step] for step in one)
    print(f"{split}: at most {difference:.1e} from one process, over 50 steps")
    assert difference <= NEAR
    assert got[50] < 0.5 * got[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_micro_batches_and_a_norm_that_is_clipped_change_nothing(tmp_path: Path, one: dict[int, float]) -> None:
    for number, more in enumerate(("strategy.whole_gradients=false", "strategy.whole_gradients=true")):
        got = losses(trained(tmp_path, f"a{number}", "fsdp(2)", "train.steps=50", "train.accumulate=2", more))
        assert max(abs(got[step] - one[step]) / one[step] for step in one) <= NEAR


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("option", "near"),
    [("strategy.static_graph=true", NEAR), ("strategy.comm_hook=fp16", 1e-3), ("strategy.comm_hook=powersgd", 0.2)],
)
def test_what_ddp_can_be_told(tmp_path: Path, one: dict[int, float], option: str, near: float) -> None:
    more = ("strategy.powersgd_start=4", "strategy.powersgd_rank=4") if "powersgd" in option else ()
    more += () if "static" in option else ("train.accumulate=2",)
    got = losses(trained(tmp_path, "told", "ddp(2)", "train.steps=50", option, *more))
    difference = max(abs(got[step] - one[step]) / one[step] for step in one)
    print(f"{option}: at most {difference:.1e} from one process")
    assert difference <= near
    assert (difference > NEAR) == (near > NEAR), "the option does something"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("split", ["fsdp(2)", "hsdp(2x2)", "tp x fsdp(2x2)"])
def test_killed_and_resumed_it_is_equal_to_the_bit(tmp_path: Path, split: str) -> None:
    saves = ("train.steps=24", "train.save_every=4")
    whole = trained(tmp_path, "whole", split, *saves)
    killed = whole.with_name("killed")
    with running(tmp_path, words(tmp_path, "killed", split, *saves)) as process:
        wait_for((killed / "checkpoints" / "step_000000008").exists)
        kill_tree(process)
    done = finish(tmp_path, ["resume", str(killed)], timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(events(killed, "started")) == 2
    assert losses(killed) == losses(whole)
    assert shards(killed) == shards(whole)
    sizes = {name: entry["bytes"] for name, entry in verify(killed / "checkpoints" / "step_000000024").files.items()}
    assert sizes["model.1.safetensors"] == pytest.approx(sizes["model.safetensors"], rel=0.1)
    assert ("model.2.safetensors" in sizes) == (split == "tp x fsdp(2x2)"), "what is replicated is written once"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_one_split_saved_another_goes_on_with(tmp_path: Path) -> None:
    """A chain through all of them, each killed when it has saved: the losses stay those of one process."""
    saves = ("train.steps=90", "train.save_every=2")
    whole = losses(trained(tmp_path, "whole", "one", *saves))
    run = tmp_path / "runs" / "shakespeare" / "chain"
    order = ["ddp(2)", "tp(2)", "fsdp(4)", "one", "tp x fsdp(2x2)", "fsdp(2)", "hsdp(2x2)", "zero1(2)", "tp(2)", "ddp(2)"]
    for turn, split in enumerate(order):
        again = ["resume", str(run), *(SPLITS[split] or ("strategy=ddp", "cluster.processes_per_node=1"))]
        before = newest(run)
        with running(tmp_path, again if turn else words(tmp_path, "chain", split, *saves)) as process:
            if turn < len(order) - 1:
                wait_for(lambda before=before: newest(run) > before, 100)
                kill_tree(process)
            else:
                assert process.wait(200) == 0
    got = losses(run)
    assert got.keys() == whole.keys()
    assert max(abs(got[step] - whole[step]) / whole[step] for step in whole) <= NEAR
    assert len(events(run, "moved")) == len(order) - 1
    assert json.loads((run / "summary.json").read_text())["state"] == "done"


def newest(run: Path) -> int:
    return max((step for step, _ in by_step(run / "checkpoints")), default=0)
