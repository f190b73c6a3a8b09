"""The small models: their shapes, that a pipeline's stages are the whole, and what their constructors refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from launcher.config import layout
from models.cnn import CNN
from models.mlp import MLP, regressor

MODELS = {
    "models.mlp.MLP": (MLP(48, (16, 8), 5), (7, 3, 4, 4)),
    "models.mlp.regressor": (regressor(6, (8,), 2), (7, 6)),
    "models.cnn.CNN": (CNN(3, (4, 8), 5).eval(), (7, 3, 9, 9)),
}


@pytest.mark.parametrize("target", MODELS)
def test_a_small_model_is_its_stages_one_after_the_other(target: str) -> None:
    model, shape = MODELS[target]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    known = layout.of({"_target_": target})
    assert {type(module).__name__ for module in model.modules()} >= set(known.blocks)
    y = x
    for name in known.stages:
        parts = [model.get_submodule(name)] if "*" not in name else list(model.get_submodule(name.removesuffix(".*")).children())
        for part in parts:
            y = part(y)
    assert torch.equal(model(x), y)
    assert y.shape == (7, 2 if target.endswith("regressor") else 5)


def test_widths_are_those_of_the_hidden_layers() -> None:
    linear = [module for module in MLP(64, (64, 32), 10).modules() if isinstance(module, nn.Linear)]
    assert [(each.in_features, each.out_features) for each in linear] == [(64, 64), (64, 32), (32, 10)]
    assert sum(parameter.numel() for parameter in regressor(6, (), 1).parameters()) == 7


def test_a_network_without_a_stage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model\.widths=\[\]: .*type one width"):
        CNN(widths=())
