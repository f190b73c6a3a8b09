"""Layers that do not learn are named, and those that do are left in peace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from launcher.train.layers import Layers


class Board:
    def __init__(self) -> None:
        self.shown: dict[str, dict[str, float]] = {}

    def layers(self, step: int, kind: str, values: dict[str, float]) -> None:
        self.shown[kind] = values


def look(model: nn.Module, steps: int = 8, spoil: Any = lambda step: None) -> tuple[list[str], Board]:
    """Train on noise, look at every step."""
    torch.manual_seed(0)
    layers, board, warnings = Layers(model, 1), Board(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(1, steps + 1):
        model(torch.randn(16, 8)).square().mean().backward()
        spoil(step)
        around = layers.around(step)
        assert around is not None
        around(optimizer.step)
        optimizer.zero_grad()
        assert layers.finish(step, board) == [], "its numbers are on their way yet"
        warnings += layers.finish(step + 1, board)
    return warnings, board


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def test_layers_that_learn_are_shown_and_not_warned_of() -> None:
    model = network()
    warnings, board = look(model)
    assert warnings == []
    assert set(board.shown) == {"grad_norm", "update_ratio", "dead"}
    assert set(board.shown["grad_norm"]) == {name for name, _ in model.named_parameters()}
    assert all(0 < ratio < 1 for ratio in board.shown["update_ratio"].values())


def test_the_update_ratio_is_that_of_plain_sgd() -> None:
    model = nn.Linear(8, 4)
    weight = model.weight.detach().clone()
    _, board = look(model, steps=1)
    moved = (model.weight.detach() - weight).norm() / weight.norm()
    assert board.shown["update_ratio"]["weight"] == pytest.approx(moved.item(), rel=1e-3)


def test_dead_outputs() -> None:
    model = network()
    with torch.no_grad():
        model[2].bias[:10] = -100.0  # a ReLU behind it that never opens
    warnings, _ = look(model)
    assert warnings == ["2.weight: 62% of its outputs get no gradient, and never did"]


def test_a_layer_that_no_gradient_reaches() -> None:
    model = network()
    with torch.no_grad():
        model[4].weight.zero_()
    warnings, _ = look(model, steps=1)
    assert "0.weight: no gradient reaches it" in warnings


def test_an_exploding_gradient() -> None:
    model = network()

    def explode(step: int) -> None:
        if step == 7:
            model[0].weight.grad *= 1000

    warnings, _ = look(model, spoil=explode)
    assert len(warnings) == 1
    assert warnings[0].startswith("0.weight: its gradient is ")


def test_a_layer_that_updates_do_not_move() -> None:
    model = network()

    def vanish(step: int) -> None:
        model[0].weight.grad *= 1e-7

    warnings, _ = look(model, spoil=vanish)
    assert len(warnings) == 1
    assert warnings[0].startswith("0.weight: an update moves it by")


def test_an_embedding_is_not_dead_where_few_rows_are_used() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(100, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(torch.zeros(16, dtype=torch.int64)) + x

    assert look(Words())[0] == []


def test_never_is_never() -> None:
    assert Layers(network(), 0).around(500) is None
    assert Layers(network(), 500).around(499) is None
