"""A run that is over before its last step, and the step that was best: the same whether it was interrupted or not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers import Command
from processes import events, finish, kill_tree, lines, losses, running, toy_words, wait_for

from launcher.errors import ConfigError
from launcher.rundir.objective import Objective
from launcher.train.checkpoint.manifest import by_step
from launcher.train.checkpoint.stored import TrainState, state_of
from launcher.train.ends import Ends


def judged(ends: Ends, values: list[float], name: str = "accuracy") -> TrainState:
    """After evaluations every ten steps, until it is over."""
    state = TrainState()
    for value in values:
        state.step += 10
        ends.judge(state, {name: value, "samples": 7})
        if state.ended:
            break
    return state


def test_it_ends_when_so_many_evaluations_are_no_better() -> None:
    ends = Ends.of({"patience": 2}, "val_accuracy")
    state = judged(ends, [0.5, 0.6, 0.6, 0.7, 0.7, 0.6, 0.9])
    assert (state.step, state.best_step, state.best_value, state.ended) == (60, 40, 0.7, "early_stop")
    assert judged(ends, [0.5, 0.4, 0.6, 0.5, 0.7, 0.6]).ended == ""
    assert judged(ends, [float("nan"), float("nan"), 0.5]).step == 20, "no number is no better"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("objective", ["val_f1", "val_error"])
def test_what_is_no_finite_number_is_no_better_and_no_other_metric_takes_its_place(value: float, objective: str) -> None:
    """An infinite best was saved as no checkpoint can be read again, and nan was replaced by the loss, which the next was compared with."""
    state, ends = TrainState(), Ends.of({"patience": 3}, objective)
    for now in (value, 0.5, value):
        state.step += 10
        ends.judge(state, {objective.removeprefix("val_"): now, "loss": 2.3, "samples": 7})
        assert state_of({"state": asdict(state)}) == state
    assert (state.best_step, state.best_value, state.worse) == (20, 0.5, 1)


@pytest.mark.parametrize(
    ("early_stop", "values", "ended_at"),
    [
        ({"patience": 1, "metric": "val_loss"}, [3.0, 2.0, 2.5, 1.0], 30),
        ({"patience": 1, "metric": "val_loss", "mode": "max"}, [3.0, 2.0, 2.5, 1.0], 20),
        ({"patience": 1, "metric": "val_loss", "min_delta": 0.5}, [3.0, 2.0, 1.6, 1.0], 30),
        ({"patience": 1}, [3.0, 2.0, 2.5, 1.0], 30),  # of no accuracy the loss takes the place, as in a sweep
    ],
)
def test_which_way_is_better_is_told_or_known(early_stop: dict, values: list[float], ended_at: int) -> None:
    assert judged(Ends.of(early_stop, "val_accuracy"), values, "loss").step == ended_at


def test_the_best_is_the_best_though_by_too_little_to_go_on() -> None:
    state = judged(Ends.of({"patience": 3, "metric": "val_loss", "min_delta": 0.5}, None), [3.0, 2.8, 2.6, 2.4, 2.3, 2.35, 2.2], "loss")
    assert (state.step, state.best_step, state.best_value, state.ended) == (70, 70, 2.2, "early_stop")


def test_a_metric_that_no_evaluation_has_is_said() -> None:
    ends = Ends.of({"patience": 1, "metric": "val_f1"}, "val_accuracy")
    with pytest.raises(ConfigError, match=r"evaluations say nothing of val_f1; type another metric in it \(val_accuracy\)"):
        judged(ends, [0.5])
    with pytest.raises(ConfigError, match="there is no validation part"):
        ends.judge(TrainState(step=5), {})
    assert Ends(Objective("val_f1", "max")).judge(TrainState(step=5), {}) == "", "who asks for no end is told of none"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("train.early_stop=3", "train.early_stop=3 cannot be; type null, or {patience: 3}"),
        ("train.early_stop={patience:0}", "cannot be; type null, or {patience: 3}"),
        ("train.early_stop={patience:2,mode:best,metric:val_loss}", "cannot be"),
        ("train.early_stop={patience:2,delta:1}", "cannot be"),
        ("train.seconds=0", "train.seconds=0.0 cannot be; type seconds above 0, or null"),
    ],
)
def test_what_cannot_be_is_one_line(command: Command, word: str, said: str) -> None:
    answer = command("plan", word)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert said in answer.lines[0]
    answer = command("plan", "train.early_stop={patience:2}", "train.eval_every=0")
    assert "type train.eval_every=auto" in answer.lines[0]


SHORT = ("train.steps=4000", "train.eval_every=8", "train.early_stop={patience:3}", "train.keep_best=true", "train.save_every=4")


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_killed_or_not_it_ends_at_the_same_step_and_keeps_the_best(tmp_path: Path) -> None:
    """By two processes and by one."""
    found = []
    for name, more in (("whole", ()), ("killed", ("cluster.processes_per_node=2",))):
        run, words = tmp_path / "runs" / "toy" / name, toy_words(tmp_path / "runs", f"id={name}", *SHORT, *more)
        if name == "killed":
            for goal, again in ((9, words), (21, ["resume", str(run)])):
                with running(tmp_path, again) as process:
                    wait_for(lambda goal=goal, run=run: max(losses(run), default=0) >= goal)
                    kill_tree(process)
            words = ["resume", str(run)]
        done = finish(tmp_path, words, timeout=150)
        assert done.returncode == 0, done.stderr
        summary = json.loads((run / "summary.json").read_text())
        accuracies = {line["step"]: line["accuracy"] for line in lines(run / "metrics.jsonl") if line["split"] == "val"}
        best = min(accuracies, key=lambda step: (-accuracies[step], step))
        assert (summary["state"], summary["ended_by"], summary["steps"]) == ("done", "early_stop", best + 3 * 8)
        assert summary["best"] == {"step": best, "value": accuracies[best]}
        assert "test_accuracy" in summary
        steps = [step for step, _ in by_step(run / "checkpoints")]
        assert steps == [summary["steps"], summary["steps"] - 4, best]
        state = json.loads((run / "checkpoints" / f"step_{steps[0]:09d}" / "state.json").read_text())["state"]
        assert state["ended"] == "early_stop"
        found.append((summary["steps"], summary["best"]["step"]))
        assert (
            "is no better after 3 evaluations, and the best was"
            in (run / "attempts").joinpath(f"{len(events(run, 'started')) - 1:03d}", "rank_0.log").read_text()
        )
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.timeout(100)
def test_seconds_of_all_attempts_are_a_budget(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "toy" / "paid"
    words = toy_words(
        tmp_path / "runs", "id=paid", "train.steps=100000000", "train.seconds=6", "train.eval_every=0", "train.save_every=100"
    )
    with running(tmp_path, words) as process:
        wait_for(lambda: by_step(run / "checkpoints"))
        kill_tree(process)
    done = finish(tmp_path, ["resume", str(run)], timeout=60)
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["ended_by"]) == ("done", "seconds")
    assert 6 <= summary["seconds"] < 16
    assert {"val_accuracy", "test_accuracy"} <= summary.keys()
