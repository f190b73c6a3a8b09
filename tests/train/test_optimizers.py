"""Several optimizers beside each other, one that evaluates its loss as it goes: trained, killed, resumed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import finish, kill_tree, losses, start, toy_words, wait_for
from test_kill import shards
from torch import nn

from launcher.errors import ConfigError
from launcher.train.closure import Closure
from launcher.train.optim import lbfgs, muon
from launcher.train.optimizers import Optimizers, build
from launcher.train.record.meter import Meter, Totals
from launcher.train.tasks.task import Step
from launcher.train.world.ranks import Ranks

LBFGS = ("optim=lbfgs", "optim.lr=1", "optim.max_iter=3", "train.eval_every=0", "model.dropout=0.5")
LION = ("optim=lion", "optim.lr=0.01", "optim.weight_decay=0.1", "+optim.groups={*.bias:{lr:0.02,betas:[0.8,0.9]}}", "train.eval_every=0")
MUON = ("optim=muon", "train.eval_every=0")
CPU = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("words", "processes"), [(LION, 2), (MUON, 2), (LBFGS, 1), (LBFGS, 2)], ids=["lion by name", "muon", "lbfgs on one", "lbfgs"]
)
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path, words: tuple[str, ...], processes: int) -> None:
    """Losses and all that the last checkpoint holds; replicas are compared, with two processes."""
    words = (*words, f"cluster.processes_per_node={processes}", "train.steps=24", "train.save_every=7", "train.compare_every=5")
    whole, killed = (tmp_path / "runs" / "toy" / name for name in ("whole", "killed"))
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=whole", *words), timeout=200)
    assert done.returncode == 0, done.stderr
    process = start(tmp_path, toy_words(tmp_path / "runs", "id=killed", *words), TOY_STEP_SECONDS="0.1")
    try:
        wait_for(lambda: max(losses(killed), default=0) >= 10, seconds=120, what="step 10")
    finally:
        kill_tree(process)
    again = finish(tmp_path, ["resume", str(killed)], timeout=200)
    assert again.returncode == 0, again.stderr
    assert "resumed from step_0000000" in again.stdout
    assert losses(killed) == losses(whole)
    assert shards(killed) == shards(whole)
    assert losses(whole)[24] < 0.7 * losses(whole)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train.channels_last=true",), "LBFGS cannot take filters that lie channels last in memory; type train.channels_last=auto"),
        (("train.clip_norm=1",), "train.clip_norm=1: LBFGS searches along the gradient as it is; type train.clip_norm=0"),
        (("train.on_bad=skip",), "train.on_bad=skip: LBFGS cannot leave an update out"),
    ],
)
@pytest.mark.slow
def test_what_a_closure_does_not_go_with_is_one_line_before_the_first_step(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    refused = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", *LBFGS, *words))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert said in refused.stderr
    assert losses(tmp_path / "runs" / "toy" / "a") == {}


def test_fp16_and_clipping_do_not_go_with_a_closure() -> None:
    model = network()
    optimizers = Optimizers([lbfgs(model)], model)
    assert optimizers.needs_closure
    with pytest.raises(ConfigError, match=r"train\.precision=fp16: its gradient scaler cannot step LBFGS"):
        Closure(optimizers, model, Meter(CPU), Ranks(0, 1), True, 0.0, fp16=True)
    with pytest.raises(ConfigError, match=r"train\.clip_norm=0\.5: LBFGS"):
        Closure(optimizers, model, Meter(CPU), Ranks(0, 1), True, 0.5, fp16=False)


def test_a_closure_is_one_function_and_its_first_evaluation_alone_is_counted() -> None:
    """As LBFGS by itself, on a model with dropout and a norm's statistics."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
    alone, x = copy.deepcopy(model), torch.randn(32, 4)
    optimizers, meter = Optimizers([lbfgs(model)], model), Meter(CPU)
    seen: list[float] = []

    def evaluate(micro_batches: Iterator[Any]) -> None:
        for batch in micro_batches:
            loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
            loss.backward()
            meter.add(Step(32 * loss, 32))
            seen.append(loss.item())

    drawn = torch.get_rng_state()
    Closure(optimizers, model, meter, Ranks(0, 1), True, 0.0, fp16=False).around([x], evaluate)()
    ended = torch.get_rng_state()
    assert len(seen) > 5
    totals, weight = meter.take()
    assert weight == 32
    assert Totals.of(totals.value().tolist()).loss == pytest.approx(32 * seen[0])
    assert model[1].num_batches_tracked == 1
    reference = lbfgs(alone)

    def closure() -> torch.Tensor:
        torch.set_rng_state(drawn)
        reference.zero_grad()
        loss = (alone(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        return loss.double()

    reference.step(closure)
    assert torch.equal(torch.get_rng_state(), ended)
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# ---------------------------------------------------------------- who trains what


def test_muon_has_the_hidden_matrices_and_adamw_the_rest() -> None:
    model = network()
    first, second = Optimizers(muon(model, aside=["3"]), model).each
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    has = [{names[id(each)] for group in one.param_groups for each in group["params"]} for one in (first, second)]
    assert has == [{"1.weight"}, {"0.weight", "1.bias", "2.weight", "2.bias", "3.weight", "3.bias"}]
    assert [group["weight_decay"] for group in second.param_groups] == [0.01, 0.0]


@pytest.mark.parametrize(
    ("model", "aside", "said"),
    [
        (nn.Conv2d(3, 4, 3), [], "the model has no hidden matrix"),
        (nn.Linear(3, 4), ["weigh"], "optim.aside: the model has no weigh; its parameters are weight, bias"),
    ],
)
def test_what_muon_cannot_train_is_one_line(model: nn.Module, aside: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        muon(model, aside=aside)


def test_a_torch_without_muon_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match=r"has no Muon, 2\.9 has; update torch, or type optim=adamw"):
        muon(network())


def sgd(*parameters: torch.Tensor) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda m: [sgd(m.weight)], "optim gives bias to no optimizer"),
        (lambda m: [sgd(m.weight, m.bias), sgd(m.bias)], "optim gives bias to two optimizers"),
        (lambda m: [sgd(m.weight, m.bias, torch.zeros(2, 3))], r"a tensor of shape \(2, 3\) that is no parameter of the model"),
        (lambda m: [sgd(m.weight), "adam"], "optim gives a str; it has to give an optimizer"),
        (lambda m: [sgd(m.weight), torch.optim.LBFGS([m.bias])], "LBFGS evaluates the loss as it goes .* 2 optimizers cannot be"),
    ],
)
def test_each_trained_parameter_is_in_exactly_one(made: Any, said: str) -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ConfigError, match=said):
        Optimizers(made(model), model)


def test_what_is_frozen_needs_none() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert build({"_target_": "torch.optim.Adam", "lr": 0.1}, model).parameters == [model.weight]


# ---------------------------------------------------------------- what the loop calls


def test_each_group_has_its_own_rate_times_the_factor() -> None:
    model = network()
    optimizers = Optimizers(muon(model, lr=0.02, adamw_lr=0.003), model)
    optimizers.set_lr(0.3)
    assert [group["lr"] for group in optimizers.param_groups] == [0.02 * 0.3, 0.003 * 0.3, 0.003 * 0.3]
    assert optimizers.lr == 0.02 * 0.3


def test_a_hook_of_a_step_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model, called = nn.Linear(3, 2), []
    plain, hooked = sgd(*model.parameters()), sgd(*model.parameters())
    hooked.register_step_post_hook(lambda *args: called.append(args))
    for one in (plain, hooked):
        before = model.weight.detach().clone()
        model(torch.ones(3)).sum().backward()
        optimizers = Optimizers([one], model)
        optimizers.step()
        optimizers.zero_grad()
        assert not torch.equal(model.weight, before)
        assert model.weight.grad is None
    assert len(called) == 1
