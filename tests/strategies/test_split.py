"""Every way to split a model trains what one process trains (docs/strategies.md has the table)."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import events, finish, kill_tree, lines, losses, running, toy_words, wait_for, worker_of
from split_runs import SPLITS, TEXT, moved_to, trained, words
from test_kill import shards

from launcher.train.checkpoint.manifest import by_step, verify

SEED = 20261127
ELSEWHERE = ("fsdp(4)", "cp x ddp(2x2)", "pp x fsdp(2x2)")
"""Compared from their first step with --full: the chain below compares the last two with one process too, and fsdp(2) is like fsdp(4)."""
NEAR = 1e-5
"""Of a loss, relative: sums over ranks are made in another order."""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of 50 steps of one process."""
    return losses(trained(tmp_path_factory.mktemp("one"), "one", "one", "train.steps=50"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("split", [pytest.param(each, marks=[pytest.mark.full] * (each in ELSEWHERE)) for each in SPLITS if each != "one"])
def test_its_losses_are_those_of_one_process(tmp_path: Path, one: dict[int, float], split: str) -> None:
    run = trained(tmp_path, "split", split, "train.steps=50")
    got = losses(run)
    assert got.keys() == one.keys()
    difference = max(abs(got[step] - one[step]) / one[step] for step in one)
    print(f"{split}: at most {difference:.1e} from one process, over 50 steps")
    assert difference <= NEAR
    assert got[50] < 0.8 * got[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("schedule", ["zero_bubble", *(pytest.param(each, marks=pytest.mark.full) for each in ("gpipe", "interleaved"))])
def test_whatever_is_computed_when_its_losses_are_those_of_one_process(tmp_path: Path, one: dict[int, float], schedule: str) -> None:
    """With two stages for each process where the schedule has several."""
    count = 1 if schedule == "gpipe" else 2
    more = (f"strategy.schedule={schedule}", f"strategy.stages_per_process={count}")
    got = losses(trained(tmp_path, "scheduled", "pp(2)", "train.steps=50", *more))
    difference = max(abs(got[step] - one[step]) / one[step] for step in one)
    print(f"{schedule}: at most {difference:.1e} from one process, over 50 steps")
    assert got.keys() == one.keys()
    assert difference <= NEAR


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_convolutional_net_too(tmp_path: Path, full: bool) -> None:
    """With GroupNorm: BatchNorm takes its statistics from a share of the batch, under every strategy that shares it out."""
    net = ("model=resnet8", "model.groups=4", "model.num_classes=4", "model.width=8", "train.steps=50")
    found: dict[str, dict[int, float]] = {}
    for number, split in enumerate(("one", "fsdp(2)", "pp(2)", *(("ddp(2)", "zero1(2)", "hsdp(2x2)", "pp x ddp(2x2)") if full else ()))):
        done = finish(tmp_path, toy_words(tmp_path / "runs", f"id={number}", *net, *SPLITS[split]), timeout=100)
        assert done.returncode == 0, done.stderr
        found[split] = losses(tmp_path / "runs" / "toy" / str(number))
    one = found.pop("one")
    for split, got in found.items():
        difference = max(abs(got[step] - one[step]) / one[step] for step in one)
        print(f"{split}: at most {difference:.1e} from one process, over 50 steps of a ResNet")
        assert got.keys() == one.keys()
        assert difference <= NEAR


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_what_a_task_draws_and_weighs_is_the_same_in_all_stages(tmp_path: Path) -> None:
    net = ("model=resnet8", "model.groups=4", "model.num_classes=4", "model.width=8", "train.steps=10")
    drawn, looped = "task._target_=toyproject.drawn.Drawn", ("strategy.schedule=interleaved", "strategy.stages_per_process=2")
    found: list[dict[int, float]] = []
    for number, more in enumerate(((), SPLITS["pp(2)"], (*SPLITS["pp(2)"], *looped))):
        done = finish(tmp_path, toy_words(tmp_path / "runs", f"id={number}", *net, drawn, *more), timeout=60)
        assert done.returncode == 0, done.stderr
        found.append(losses(tmp_path / "runs" / "toy" / str(number)))
    for got in found[1:]:
        assert got == pytest.approx(found[0], rel=NEAR)


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
    [
        ("strategy.static_graph=true", NEAR),
        pytest.param("strategy.comm_hook=fp16", 1e-3, marks=pytest.mark.full),
        ("strategy.comm_hook=powersgd", 0.2),
    ],
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
@pytest.mark.chaos
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "split", ["fsdp(2)", "pp(2)", *(pytest.param(each, marks=pytest.mark.full) for each in ("hsdp(2x2)", "tp x fsdp(2x2)", "cp(2)"))]
)
def test_killed_and_resumed_it_is_equal_to_the_bit(tmp_path: Path, split: str, many: Callable[[int, int, int], int]) -> None:
    """All of it with SIGKILL, at random steps."""
    kills, draw = many(1, 10 if split == "pp(2)" else 20, 50), random.Random(SEED)
    steps = 24 + 8 * kills
    saves = (f"train.steps={steps}", "train.save_every=4")
    whole = trained(tmp_path, "whole", split, *saves)
    killed = whole.with_name("killed")
    for number in range(kills):
        goal = max(losses(killed), default=5) + draw.randrange(1, 9)
        with running(tmp_path, ["resume", str(killed)] if number else words(tmp_path, "killed", split, *saves)) as process:
            wait_for(lambda goal=goal: max(losses(killed), default=0) >= goal)
            kill_tree(process)
    done = finish(tmp_path, ["resume", str(killed)], timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(events(killed, "started")) == kills + 1
    assert losses(killed) == losses(whole)
    assert shards(killed) == shards(whole)
    print(f"{split}: {kills} kills, equal to the bit over {steps} steps")
    sizes = {name: entry["bytes"] for name, entry in verify(killed / "checkpoints" / f"step_{steps:09d}").files.items()}
    alike = split != "pp(2)"  # a stage is not a piece
    assert not alike or sizes["model.1.safetensors"] == pytest.approx(sizes["model.safetensors"], rel=0.1)
    assert ("model.2.safetensors" in sizes) == (split == "tp x fsdp(2x2)"), "what is replicated is written once"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("split", [pytest.param(each, marks=pytest.mark.full) for each in ("fsdp(2)", "pp(2)")])
def test_a_rank_that_is_stopped_is_named(tmp_path: Path, split: str) -> None:
    run = tmp_path / "runs" / "shakespeare" / "stopped"
    watched = ("train.steps=80", "train.save_every=20", "train.hang_seconds=3")
    with running(tmp_path, words(tmp_path, "stopped", split, *watched)) as process:
        wait_for(lambda: max(losses(run), default=0) > 30)
        worker_of(process, 1).send_signal(signal.SIGSTOP)
        assert process.wait(200) == 0
    report = json.loads((run / "attempts" / "000" / "error.json").read_text())
    assert report["rank"] == 1
    assert "it is stopped" in report["message"]
    assert losses(run).keys() == {*range(1, 81)}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_one_split_saved_another_goes_on_with(tmp_path: Path, full: bool) -> None:
    """A chain through them, each killed when it has saved: the losses stay those of one process. Through all with --full."""
    saves = ("train.steps=90", "train.save_every=2")
    whole = losses(trained(tmp_path, "whole", "one", *saves))
    run = tmp_path / "runs" / "shakespeare" / "chain"
    order = [
        "ddp(2)",
        "pp(2)",
        "tp(2)",
        "fsdp(4)",
        "pp x fsdp(2x2)",
        "one",
        "tp x fsdp(2x2)",
        "fsdp(2)",
        "hsdp(2x2)",
        "zero1(2)",
        "cp(2)",
        "tp(2)",
        "cp x ddp(2x2)",
        "ddp(2)",
    ]
    order = order if full else order[::2] + order[-1:]
    for turn, split in enumerate(order):
        again = ["resume", str(run), *moved_to(split)]
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


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.full
def test_ranks_with_fewer_batches_than_others_wait_for_nobody(tmp_path: Path) -> None:
    """Seven windows to evaluate on, one at a time, and two for four ranks, of which two have none."""
    for share, windows in ((0.05, 7), (0.016, 2)):
        found: dict[str, dict] = {}
        for split in ("one", "fsdp(4)"):
            few = ("train.steps=2", "loader.eval_batch_size=1", f"data.validation={share}")
            run = trained(tmp_path, f"{split[:4]}-{windows}", split, *few)
            found[split] = [line for line in lines(run / "metrics.jsonl") if line["split"] == "val"][-1]
        assert [end["samples"] for end in found.values()] == [windows, windows]
        assert found["fsdp(4)"]["loss"] == pytest.approx(found["one"]["loss"], rel=NEAR)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("exp", ["gpt2_124m", "llama_1b", "llama_8b"])
def test_what_does_not_fit_here_takes_its_first_steps_shrunk(tmp_path: Path, exp: str) -> None:
    (tmp_path / "york.txt").write_text(TEXT)
    shrunk = ("model.dim=64", "model.layers=2", "model.heads=4", "model.hidden=128", "model.vocab_size=256", "data.length=64")
    ends = (
        "train.steps=3",
        "train.batch_size=8",
        "train.log_every=1",
        f"data.path={tmp_path / 'york.txt'}",
        f"runs_dir={tmp_path}",
        "id=a",
    )
    kv = () if exp == "gpt2_124m" else ("model.kv_heads=2",)
    done = finish(tmp_path, [f"+exp={exp}", *shrunk, *kv, *ends, "cluster.processes_per_node=2"], timeout=150)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / exp / "a").keys() == {1, 2, 3}
