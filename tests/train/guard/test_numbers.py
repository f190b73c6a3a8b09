"""A loss that is not finite, or jumps: every rank agrees, no checkpoint holds it, and a run that goes back is one that never met it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import events, finish, lines, losses, toy_words
from safetensors.torch import load_file

from launcher.errors import ConfigError
from launcher.train.checkpoint.manifest import verify
from launcher.train.checkpoint.tensorfile import HostMemory
from launcher.train.guard.guard import HISTORY, BadNumbers, Guard
from launcher.train.guard.skip import Skipper
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter

TWO = ("cluster.processes_per_node=2", "train.steps=60", "train.save_every=13", "train.log_every=5")


def shards(run: Path) -> dict[str, str]:
    newest = max((run / "checkpoints").glob("step_*"))
    return {name: entry["sha256"] for name, entry in verify(newest).files.items() if name != "state.json"}


def test_by_default_the_run_stops_with_one_line_and_keeps_what_was_good(tmp_path: Path) -> None:
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", *TWO, "loader.poison=[32,null]"))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("launcher: the loss of steps 31 to 35 is nan; lower optim.lr")
    assert "Traceback" not in done.stderr
    run = tmp_path / "runs" / "toy" / "a"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_000000013", "step_000000026"]
    assert max(losses(run)) == 30


GOES_BACK = (*TWO, "train.on_bad=rollback", "train.log_every=1", "model._target_=toyproject.net.Linear", "~model.width", "~model.fill")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that never had the batches of steps 27 to 32."""
    home = tmp_path_factory.mktemp("without")
    done = finish(home, toy_words(home / "runs", "id=a", *GOES_BACK, "loader.without=[26,32]"))
    assert done.returncode == 0, done.stderr
    return home / "runs" / "toy" / "a"


@pytest.mark.parametrize(("poison", "spike"), [("null", "0"), ("-1000", "5")])
def test_a_rollback_gives_the_run_that_never_had_these_batches(tmp_path: Path, without: Path, poison: str, spike: str) -> None:
    words = toy_words(tmp_path / "runs", "id=a", *GOES_BACK, f"train.spike={spike}", f"loader.poison=[31,{poison}]")
    done = finish(tmp_path, words)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "toy" / "a"
    assert [(event["step"], event["to"]) for event in events(run, "rolled_back")] == [(32, 26)]
    assert losses(run) == losses(without)
    assert shards(run) == shards(without)
    assert [line["step"] for line in lines(run / "metrics.jsonl") if line["split"] == "train"] == list(range(1, 61))


def test_what_was_refused_is_saved_when_training_comes_by_again(tmp_path: Path) -> None:
    words = (
        "train.steps=60",
        "train.save_every=13",
        "train.log_every=50",
        "train.keep=9",
        "train.on_bad=rollback",
        "loader.poison=[30,null]",
    )
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", *words))
    assert done.returncode == 0, done.stderr
    saved = sorted(int(path.name[5:]) for path in (tmp_path / "runs" / "toy" / "a" / "checkpoints").glob("step_*"))
    assert saved == [0, 13, 26, 39, 52, 60]


def test_it_gives_up_after_so_many(tmp_path: Path) -> None:
    words = (
        "train.steps=60",
        "train.log_every=1",
        "train.on_bad=rollback",
        "train.max_rollbacks=2",
        "loader.fail_at=null",
        "optim.lr=1e30",
    )
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", *words))
    assert done.returncode == 1
    assert "went back 2 times already, which is train.max_rollbacks" in done.stderr
    assert len(events(tmp_path / "runs" / "toy" / "a", "rolled_back")) == 2


@pytest.mark.slow
def test_a_kill_takes_no_rollback_back(tmp_path: Path) -> None:
    """Killed after it went back and before it saved again, then resumed: reported are all of them, and the limit is of all."""
    words = ("train.steps=60", "train.save_every=20", "train.log_every=1", "train.on_bad=rollback", "loader.poison=[30,null]")
    words = toy_words(tmp_path / "runs", "id=a", *words, "cluster.requeue=false", "train.max_rollbacks=2")
    run = tmp_path / "runs" / "toy" / "a"
    for _ in range(2):
        assert finish(tmp_path, words, TOY_ENDS_AFTER=f"{36 if not (run / 'attempts').exists() else 16} SIGKILL").returncode == 1
    assert len(events(run, "rolled_back")) == 2
    last = finish(tmp_path, words)
    assert last.returncode == 1
    assert "the run went back 2 times already, which is train.max_rollbacks" in last.stderr
    assert finish(tmp_path, [*words, "resume=never"]).returncode == 0
    assert json.loads((run / "summary.json").read_text())["rollbacks"] == 1


def test_a_checkpoint_that_meets_them_first_is_refused_on_both_ranks(tmp_path: Path) -> None:
    """The log comes at the end, a save every 13 steps, which waits for the one before: weights are bad before the loss is looked at."""
    words = ("cluster.processes_per_node=2", "train.steps=60", "train.save_every=13", "train.log_every=100", "loader.poison=[30,null]")
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", *words))
    assert done.returncode == 1
    assert "has values that are not finite" in done.stderr
    assert "Traceback" not in done.stderr
    error = json.loads((tmp_path / "runs" / "toy" / "a" / "attempts" / "000" / "error.json").read_text())
    assert error["exception"] == "BadNumbers"
    newest = max((tmp_path / "runs" / "toy" / "a" / "checkpoints").glob("step_*"))
    assert newest.name == "step_000000026"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_skipped_update_changes_nothing_but_the_count(tmp_path: Path, processes: int) -> None:
    """The first one, and one in the middle; bad on one rank alone. Weights, optimizer and BatchNorm's statistics stay as they were."""
    words = (f"cluster.processes_per_node={processes}", "train.steps=33", "train.save_every=1", "train.keep=40", "train.on_bad=skip")
    words = (*words, "train.compare_every=1", "train.log_every=1")
    home = tmp_path / "runs" / "toy"
    for name, poison in (("first", 0), ("later", 30)):
        done = finish(tmp_path, toy_words(tmp_path / "runs", f"id={name}", *words, f"loader.poison=[{poison},null]"))
        assert done.returncode == 0, done.stderr
        seen = {line["step"]: line for line in lines(home / name / "metrics.jsonl") if line["split"] == "train"}
        assert [step for step, line in seen.items() if line.get("skipped")] == [poison + 1]
        assert "loss" not in seen[poison + 1]
        assert all(line["loss"] is not None for step, line in seen.items() if step != poison + 1)
        assert json.loads((home / name / "summary.json").read_text())["skipped_updates"] == 1
        assert [event["step"] for event in events(home / name, "skipped")] == [poison + 1]
    for rank in range(processes):
        before, after = (_tensors(home / "later" / "checkpoints" / f"step_{step:09d}", rank) for step in (30, 31))
        assert before.keys() == after.keys()
        changed = [name for name in before if not torch.equal(before[name], after[name]) and not name.startswith("average|")]
        assert changed == ["generator|cpu"], "dropout has drawn; averages move towards the same weights once more"


def _tensors(checkpoint: Path, rank: int) -> dict[str, torch.Tensor]:
    names = ("model.safetensors", "optimizer.safetensors", f"rank_{rank}.safetensors")
    tensors = {name: tensor for file in names for name, tensor in load_file(checkpoint / file).items()}
    return {name: tensor for name, tensor in tensors.items() if name != "meter"}


def test_a_mean_is_over_the_updates_that_were_made(tmp_path: Path) -> None:
    """The same training, a line for each update or for five: the line of five is the mean of the four that were made."""
    words = ("train.on_bad=skip", "train.steps=20", "model._target_=toyproject.net.Linear", "~model.width", "~model.fill")
    means = {}
    for name, every in (("each", 1), ("five", 5)):
        done = finish(tmp_path, toy_words(tmp_path / "runs", f"id={name}", *words, f"train.log_every={every}", "loader.poison=[12,null]"))
        assert done.returncode == 0, done.stderr
        means[name] = {line["step"]: line for line in lines(tmp_path / "runs" / "toy" / name / "metrics.jsonl") if line["split"] == "train"}
    made = [means["each"][step]["loss"] for step in (11, 12, 14, 15)]
    assert means["five"][15]["loss"] == pytest.approx(sum(made) / 4, rel=1e-12)
    assert means["five"][15]["skipped"] == 1


def test_it_stops_after_so_many_skips(tmp_path: Path) -> None:
    words = ("train.steps=60", "train.log_every=1", "train.on_bad=skip", "train.max_skips=4", "optim.lr=1e30")
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", *words))
    assert done.returncode == 1
    assert "5 updates had a gradient that is not finite" in done.stderr.splitlines()[-1]
    assert "train.max_skips=4" in done.stderr


def test_an_optimizer_that_cannot_skip_is_refused() -> None:
    weight = torch.nn.Linear(2, 2)
    meter = Meter(torch.device("cpu"))

    def sgd(fused: bool) -> Optimizers:
        return Optimizers([torch.optim.SGD(weight.parameters(), lr=0.1, fused=fused)], weight)

    with pytest.raises(ConfigError, match=r"SGD cannot leave an update out; type optim\.fused=true"):
        Skipper(weight, sgd(fused=False), meter, fp16=False)
    with pytest.raises(ConfigError, match="with fp16 the gradient scaler leaves updates out by itself"):
        Skipper(weight, sgd(fused=True), meter, fp16=True)


@pytest.mark.parametrize("started", [True, False])
def test_a_first_update_that_is_left_out_leaves_no_rubbish_in_the_momentum(started: bool) -> None:
    """Without the guard what torch leaves there is memory as it is; here, so that it shows, NaN."""
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(3))])
    weight = model[0]
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
    torch.use_deterministic_algorithms(True)  # it fills new memory with NaN
    try:
        if started:
            Optimizers([optimizer], model)
        for gradient in (float("inf"), 1.0):
            weight.grad = torch.full((3,), gradient)
            optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(float(gradient != 1.0))
            optimizer.step()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(weight.detach(), torch.full((3,), 0.9)) == started


def test_a_jump_is_judged_by_what_is_usual() -> None:
    guard = Guard(5)
    for step in range(HISTORY):
        guard.judge(1.0 + step % 3, step, step + 1)
    guard.judge(9.9, 20, 21)
    with pytest.raises(BadNumbers, match=r"steps 22 to 22 is 11 after 2, more than train\.spike=5 times"):
        guard.judge(11.0, 21, 22)
    Guard(5).judge(1e9, 0, 1)  # nothing is usual yet
    Guard(0).judge(1e9, 0, 1)


def test_a_scale_that_falls_for_ever_ends_the_run() -> None:
    """torch's own scaler, every update of it an overflow."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer, scaler, guard = torch.optim.SGD([weight], lr=0.1), torch.amp.GradScaler("cpu"), Guard(0)
    for step in range(24):
        scaler.scale((weight * float("inf")).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        guard.judge_scale(scaler.get_scale(), step, step + 1)
    assert torch.equal(weight.detach(), torch.ones(3)), "skipped, all of them"
    with pytest.raises(BadNumbers, match=r"overflow at every scale, down to 0\.002, .*train\.precision=bf16"):
        guard.judge_scale(scaler.get_scale() / 2, 24, 25)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_bad_value_anywhere_is_found(value: float, dtype: torch.dtype) -> None:
    tensor = torch.zeros(100_000, dtype=dtype)
    memory = HostMemory()
    list(memory.copy("f", {"w": tensor}, finite=True))
    tensor[70_001] = value
    with pytest.raises(BadNumbers, match=r"^w has values"):
        list(memory.copy("f", {"w": tensor}, finite=True))


def test_a_buffer_may_hold_infinities_but_no_nan() -> None:
    mask = torch.full((8, 8), float("-inf")).triu(1)
    list(HostMemory().copy("f", {"mask": mask}))
    mask[0, 0] = float("inf")
    list(HostMemory().copy("f", {"mask": mask}))
    mask[0, 0] = float("nan")
    with pytest.raises(BadNumbers):
        list(HostMemory().copy("f", {"mask": mask}))
