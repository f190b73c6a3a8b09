"""`optim.groups`: other settings for the parameters whose names match a pattern."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from launcher.errors import ConfigError
from launcher.train.optim import adafactor, adam, adamw, lamb, lars, lbfgs, lion, muon, sgd
from launcher.train.optimizers import Optimizers, build

ALL = (sgd, adam, adamw, adafactor, lion, lars, lamb)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def grouped(made: Any, model: nn.Module) -> list[tuple[list[str], dict[str, Any]]]:
    """Names and settings of each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizers = Optimizers(made if isinstance(made, list) else [made], model)
    return [([names[id(each)] for each in group["params"]], group) for group in optimizers.param_groups]


@pytest.mark.parametrize("made", ALL)
def test_without_groups_matrices_decay_and_vectors_do_not(made: Any) -> None:
    """In this order, on which checkpoints depend; and what is frozen is left out."""
    model = Network()
    model.head.bias.requires_grad_(False)
    (matrices, first), (vectors, second) = grouped(made(model, lr=0.5, weight_decay=0.25), model)
    assert matrices == ["body.0.weight", "body.2.weight", "head.weight"]
    assert vectors == ["body.0.bias", "body.1.weight", "body.1.bias", "body.2.bias"]
    assert (first.pop("weight_decay"), second.pop("weight_decay")) == (0.25, 0.0)
    assert {**first, "params": 0} == {**second, "params": 0}


@pytest.mark.parametrize("made", ALL)
def test_a_pattern_has_its_settings_and_what_it_does_not_set_is_as_before(made: Any) -> None:
    model = Network()
    found = grouped(made(model, lr=0.5, weight_decay=0.25, groups={"head.*": {"lr": 0.125}, "*.1.*": {"weight_decay": 0.75}}), model)
    assert [(names, group["lr"], group["weight_decay"]) for names, group in found] == [
        (["body.0.weight", "body.2.weight"], 0.5, 0.25),
        (["body.0.bias", "body.2.bias"], 0.5, 0.0),
        (["head.weight"], 0.125, 0.25),
        (["head.bias"], 0.125, 0.0),
        (["body.1.weight", "body.1.bias"], 0.5, 0.75),
    ]


def test_the_first_pattern_that_matches_counts_and_may_set_nothing() -> None:
    model = Network()
    found = grouped(adamw(model, lr=0.5, groups={"head.*": {}, "*.weight": {"betas": [0.5, 0.75]}}), model)
    assert [(names, group["betas"]) for names, group in found] == [
        (["body.0.bias", "body.1.bias", "body.2.bias"], (0.9, 0.999)),
        (["head.weight"], (0.9, 0.999)),
        (["head.bias"], (0.9, 0.999)),
        (["body.0.weight", "body.2.weight"], (0.5, 0.75)),
        (["body.1.weight"], (0.5, 0.75)),
    ]


def test_all_of_them_may_be_named_and_each_rate_follows_the_schedule() -> None:
    model = Network()
    optimizers = Optimizers([lion(model, lr=0.5, groups={"*.bias": {"lr": 0.125}, "*": {"weight_decay": 0.0}})], model)
    optimizers.set_lr(0.5)
    assert [group["lr"] for group in optimizers.param_groups] == [0.0625, 0.25]
    assert optimizers.lr == 0.0625


def test_momentum_that_a_pattern_takes_away_is_no_nesterovs() -> None:
    model = Network()
    found = grouped(sgd(model, groups={"head.*": {"momentum": 0.0}, "*.1.*": {"nesterov": False}}), model)
    assert [(group["momentum"], group["nesterov"]) for _, group in found] == [
        *((0.9, True), (0.9, True), (0.0, False), (0.0, False)),
        *((0.9, False),),
    ]
    plain = grouped(sgd(model, momentum=0.0, groups={"head.*": {"momentum": 0.5}}), model)
    assert [group["nesterov"] for _, group in plain] == [False, False, True, True]


def test_a_pattern_reaches_muon_and_the_adamw_beside_it() -> None:
    model = Network()
    found = grouped(muon(model, aside=["head"], groups={"*.2.*": {"lr": 0.5}, "head.*": {"betas": [0.5, 0.75]}}), model)
    assert [(names, group["lr"]) for names, group in found] == [
        (["body.0.weight"], 0.02),
        (["body.2.weight"], 0.5),
        (["body.0.bias", "body.1.weight", "body.1.bias"], 3e-4),
        (["body.2.bias"], 0.5),
        (["head.weight"], 3e-4),
        (["head.bias"], 3e-4),
    ]
    assert found[4][1]["betas"] == (0.5, 0.75)


@pytest.mark.parametrize(
    ("made", "groups", "said"),
    [
        (
            sgd,
            {"haed.*": {"lr": 1}},
            r"optim.groups: haed.\* matches no trained parameter; type a pattern of names such as body.\*, head.\*",
        ),
        (sgd, {"*.bias": {}, "head.bias": {}}, r"optim.groups: head.bias comes after \*.bias, .* type it before \*.bias"),
        (
            sgd,
            {"*.bias": {"betas": [0, 0]}},
            r"\*.bias sets betas, which SGD has not, and it trains body.0.bias; type one of lr, momentum, nesterov, weight_decay",
        ),
        (muon, {"body.2.*": {"betas": [0, 0]}}, "sets betas, which Muon has not, and it trains body.2.weight; type one of lr, momentum"),
        (muon, {"*.bias": {"ns_steps": 3}}, "sets ns_steps, which AdamW has not, and it trains body.0.bias"),
        (lbfgs, {"*.bias": {"lr": 1}}, r"optim.groups: \*.bias: LBFGS has the same for all parameters; leave it out, or type optim=adamw"),
    ],
)
def test_what_cannot_be_is_one_line(made: Any, groups: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        made(Network(), groups=groups)
    assert "\n" not in str(refused.value)


def test_a_pattern_of_what_is_frozen_alone_matches_nothing() -> None:
    model = Network()
    model.head.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"head.\* matches no trained parameter; type a pattern of names such as body.\*"):
        build({"_target_": "launcher.train.optim.adamw", "groups": {"head.*": {"lr": 0.1}}}, model)
