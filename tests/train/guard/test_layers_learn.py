"""Layers that do not learn are named, and those that do are left in peace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import claimed
from torch import nn

from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.state import Parts, Snapshot, restore
from launcher.train.checkpoint.stored import TrainState
from launcher.train.ema import NoEma
from launcher.train.guard.layers import Layers
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter
from launcher.train.world.ranks import Ranks

CPU = torch.device("cpu")


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


def test_what_was_seen_of_each_layer_outlives_the_attempt(tmp_path: Path) -> None:
    """Six looks, a restart, the seventh: the layer that was silent all along is named then, and one that was named is not named again."""

    def parts() -> Parts:
        model = network()
        with torch.no_grad():
            model[0].weight[:10].zero_()
            model[0].bias[:10].fill_(-1.0)
        layers = Layers(model, 1)
        return Parts(model, Optimizers([torch.optim.SGD(model.parameters(), lr=0.01)], model), None, NoEma(), Meter(CPU), CPU, layers)

    def looks(here: Parts, steps: range) -> list[str]:
        warnings = []
        for step in steps:
            here.model(torch.randn(16, 8)).square().mean().backward()
            around = here.layers.around(step)
            assert around is not None
            around(here.optimizers.step)
            here.optimizers.zero_grad()
            warnings += here.layers.finish(step + 1, Board())
        return warnings

    store = CheckpointStore(tmp_path / "c", Ranks(0, 1), claimed(tmp_path), 0, 2)
    here, there, ignorant = parts(), parts(), parts()
    assert looks(here, range(1, 6)) == []
    assert there.layers is not None
    store.save(5, Snapshot().take(here, TrainState(step=5, layers=here.layers.history(), losses=[1.5], precision="bf16"), 0))
    checkpoint = store.load(print)
    assert checkpoint is not None
    state = restore(there, checkpoint, 0)
    there.layers.remember(state.layers)
    assert (state.losses, state.precision) == ([1.5], "bf16")
    (told,) = looks(there, range(6, 7))
    assert told.startswith("0.weight: ")
    assert looks(here, range(6, 7)) == [told]
    assert looks(ignorant, range(6, 7)) == []
    store.save(6, Snapshot().take(there, TrainState(step=6, layers=there.layers.history()), 0))
    checkpoint = store.load(print)
    assert checkpoint is not None
    assert ignorant.layers is not None
    ignorant.layers.remember(restore(ignorant, checkpoint, 0).layers)
    assert looks(ignorant, range(7, 9)) == []
