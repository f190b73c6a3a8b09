"""Rates that were found for another batch: scaled once, said once, frozen as they are."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import TOY
from test_any_world import Command, frozen_run

from launcher.compose import scale_lr
from launcher.config import dialect

GROUPS = "+optim.groups={*.bias:{lr:0.2},fc.*:{weight_decay:0}}"


def frozen(*words: str) -> Any:
    return dialect.read(frozen_run(*TOY, "optim=sgd", "optim.lr=0.1", *words).config)


@pytest.fixture(autouse=True)
def _nothing_said(command: Command) -> None:
    scale_lr._SAID.clear()


@pytest.mark.parametrize(("rule", "factor"), [("linear", 4), ("sqrt", 2)])
def test_every_rate_of_the_optimizer_is_frozen_and_not_to_be_scaled_again(rule: str, factor: int, capfd: Any) -> None:
    config = frozen(f"train.scale_lr={{{rule}:64}}", "train.batch_size=256", GROUPS)
    assert config["optim"]["lr"] == 0.1 * factor
    assert config["optim"]["groups"] == {"*.bias": {"lr": 0.2 * factor}, "fc.*": {"weight_decay": 0}}
    assert config["train"]["scale_lr"] is None
    said = capfd.readouterr().err
    assert f"optim.lr={0.1 * factor:g}, not 0.1: for train.batch_size=256, where 64 has that ({rule}, train.scale_lr)" in said
    assert f"optim.groups.*.bias.lr={0.2 * factor:g}, not 0.2" in said


def test_the_batch_is_that_which_was_rounded_and_what_hangs_on_a_rate_follows() -> None:
    words = ("train.scale_lr={linear:32}", "train.round_batch=true", "cluster=slurm", "cluster.processes_per_node=3")
    config = frozen(*words, "optim.weight_decay=${optim.lr}")
    assert config["train"]["batch_size"] == 63
    assert config["optim"]["lr"] == config["optim"]["weight_decay"] == 0.196875


def test_a_run_that_is_planned_again_has_the_same_rate(command: Command) -> None:
    words = (*TOY, "optim=muon", "train.scale_lr={linear:32}")
    first, again = (dialect.read(frozen_run(*words).config)["optim"] for _ in range(2))
    assert first == again
    assert (first["lr"], first["adamw_lr"]) == (0.1, 6e-4)


@pytest.mark.parametrize("value", ["{cubic:256}", "{linear:0}", "{linear:true}", "{}", "{linear:256,sqrt:256}", "linear", "256"])
def test_what_is_no_rule_is_one_line(command: Command, value: str) -> None:
    done = command("plan", *TOY, f"train.scale_lr={value}")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "train.scale_lr=" in done.err
    assert "cannot be; type null, or {linear: 256} or {sqrt: 256}" in done.err


def test_an_optimizer_without_a_rate_has_none_to_scale(command: Command) -> None:
    done = command("plan", *TOY, "train.scale_lr={linear:256}", "~optim.lr")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "train.scale_lr: launcher.train.optim.sgd is given no lr; type optim.lr=…" in done.err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("task.class_weights=[1,2]", "task.class_weights: there are 2, and model.num_classes=10; type one for each"),
        ("task.metrics=[top10]", "task.metrics: top10 of model.num_classes=10 is always right; leave it out"),
    ],
)
def test_a_task_of_other_classes_than_the_models_is_one_line(command: Command, word: str, said: str) -> None:
    done = command("plan", "+exp=cifar", word)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err
