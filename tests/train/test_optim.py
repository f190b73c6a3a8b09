"""Adam, Adafactor and Lion: equal to torch's own, or to what the paper says, number by number."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from launcher.train.lion import Lion
from launcher.train.optim import adafactor, adam, lion
from launcher.train.optimizers import Optimizers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    return model.to(memory_format=torch.channels_last)


def leave_gradients(model: nn.Module, step: int) -> None:
    model.zero_grad()
    x = torch.linspace(-1, 1 + step, 5 * 48).reshape(5, 3, 4, 4)
    model(x).square().mean().backward()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda model: adam(model, lr=0.01, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.1),
            lambda groups: torch.optim.Adam(groups, lr=0.01, betas=(0.8, 0.95), eps=1e-6, fused=True),
        ),
        (
            lambda model: adafactor(model, lr=0.02, beta2_decay=-0.7, eps=[1e-20, 1e-2], d=1.5, weight_decay=0.1),
            lambda groups: torch.optim.Adafactor(groups, lr=0.02, beta2_decay=-0.7, eps=(1e-20, 1e-2), d=1.5),
        ),
    ],
    ids=["adam", "adafactor"],
)
def test_steps_are_those_of_torchs_own(ours: Any, theirs: Any) -> None:
    """With decay on matrices alone, a rate that changes, and the loop's own way of stepping."""
    model = network()
    alone = copy.deepcopy(model)
    optimizers = Optimizers([ours(model)], model)
    reference = theirs(
        [
            {"params": [each for each in alone.parameters() if each.ndim > 1], "weight_decay": 0.1},
            {"params": [each for each in alone.parameters() if each.ndim <= 1], "weight_decay": 0.0},
        ]
    )
    rates = [group["lr"] for group in reference.param_groups]
    for step, factor in enumerate((0.5, 1.0, 0.25, 0.1)):
        optimizers.set_lr(factor)
        for group, rate in zip(reference.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        for each in (model, alone):
            leave_gradients(each, step)
        optimizers.step()
        reference.step()
        for mine, other in zip(model.parameters(), alone.parameters(), strict=True):
            assert torch.equal(mine, other)


def test_lion_is_algorithm_2_of_its_paper() -> None:
    """Element by element, in Python's own numbers; of two groups, one with its own rate and betas."""
    torch.manual_seed(1)
    parameters = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 2), (4,))]
    optimizer = Lion(
        [{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.02, "betas": (0.5, 0.75), "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.99),
        weight_decay=0.5,
    )
    values = [each.flatten().tolist() for each in parameters]
    momenta = [[0.0] * len(each) for each in values]
    for _ in range(5):
        for number, (parameter, (lr, beta1, beta2, decay)) in enumerate(
            zip(parameters, ((0.01, 0.9, 0.99, 0.5), (0.02, 0.5, 0.75, 0.0)), strict=True)
        ):
            parameter.grad = torch.randn_like(parameter)
            for place, gradient in enumerate(parameter.grad.flatten().tolist()):
                value, momentum = values[number][place], momenta[number][place]
                mixed = beta1 * momentum + (1 - beta1) * gradient
                values[number][place] = value - lr * ((mixed > 0) - (mixed < 0) + decay * value)
                momenta[number][place] = beta2 * momentum + (1 - beta2) * gradient
        optimizer.step()
        for parameter, value, momentum in zip(parameters, values, momenta, strict=True):
            assert parameter.flatten().tolist() == pytest.approx(value, rel=1e-13)
            assert optimizer.state[parameter]["exp_avg"].flatten().tolist() == pytest.approx(momentum, rel=1e-13)


def test_lion_leaves_what_has_no_gradient() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = lion(model, lr=0.1)
    optimizer.step()
    assert all(map(torch.equal, before.values(), model.state_dict().values()))
    model[4].bias.grad = torch.tensor([3.0, 0.0])
    optimizer.step()
    assert list(optimizer.state) == [model[4].bias]
    assert torch.equal(model[4].bias, before["4.bias"] - torch.tensor([0.1, 0.0]))


def test_lion_has_a_filter_as_it_lies_and_returns_its_closures_loss() -> None:
    model = network()
    optimizer = lion(model)

    def closure() -> float:
        assert torch.is_grad_enabled()
        leave_gradients(model, 0)
        return 1.5

    assert optimizer.step(closure) == 1.5
    assert optimizer.state[model[0].weight]["exp_avg"].stride() == model[0].weight.stride()


@pytest.mark.parametrize(("made", "lr"), [(adam, 0.01), (adafactor, 0.05), (lion, 0.01)])
def test_it_trains(made: Any, lr: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizers = Optimizers([made(model, lr=lr)], model)
    losses: list[float] = []
    for _ in range(60):
        loss = (model(x) - x[:, :1] * x[:, 1:2]).square().mean()
        losses.append(loss.item())
        optimizers.zero_grad()
        loss.backward()
        optimizers.step()
    assert losses[-1] < 0.5 * losses[0]
