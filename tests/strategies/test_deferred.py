"""A model that is described first and filled later has the weights that it would have had, to the bit."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from launcher.strategies import deferred
from models.resnet import resnet20
from models.resnet9 import ResNet9
from models.transformer import Transformer


class Odd(nn.Module):
    """What constructors do with weights beside filling them."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = nn.Parameter(torch.randn(100, 100) * 0.02)
        self.linear = nn.Linear(100, 200)
        nn.init.orthogonal_(self.linear.weight)  # by a factorization
        nn.init.trunc_normal_(self.linear.bias)  # draws again until all are good
        self.table = nn.Embedding(300, 64, padding_idx=3)
        self.rate = [rate.item() for rate in torch.linspace(0, 0.5, 6000)][-1]
        self.register_buffer("mask", torch.triu(torch.full((128, 128), float("-inf")), 1))
        self.attention = nn.MultiheadAttention(64, 4)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.copies = nn.TransformerEncoder(layer, 2)  # by deepcopy
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(80, 90))
        self.recurrent = nn.LSTM(32, 64, 2)
        with torch.no_grad():
            self.table.weight[5] = self.drawn[0, :64]  # of another weight, which changes after that
            self.table.weight[:10].mul_(2)
            self.drawn.data = self.drawn.data.half().float()
            self.drawn[:, 3] = 7.0
        self.drawn.is_special = True


FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "transformer": lambda: Transformer(dim=64, layers=2),
    "untied": lambda: Transformer(dim=64, layers=2, tied=False, attention_bias=True),
    "resnet20": resnet20,
    "channels last": lambda: resnet20().to(memory_format=torch.channels_last),
    "resnet9": ResNet9,
    "odd": Odd,
}


@pytest.mark.parametrize("large", [4096, 0], ids=["as it is", "all on the meta device"])
@pytest.mark.parametrize("kind", list(FACTORIES))
def test_weights_and_generators_are_as_if_it_had_been_made_at_once(kind: str, large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "LARGE", large)
    torch.manual_seed(3)
    wanted, after = FACTORIES[kind](), torch.rand(3)
    torch.manual_seed(3)
    model = deferred.build(FACTORIES[kind])
    assert torch.equal(torch.rand(3), after)
    assert any(parameter.is_meta for parameter in model.parameters())
    state = torch.get_rng_state()
    for part in (*model.children(), model):
        deferred.fill(model, [part])
    assert torch.equal(torch.get_rng_state(), state)
    expected, got = wanted.state_dict(), model.state_dict()
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
        assert got[name].stride() == tensor.stride(), name
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in wanted.named_parameters()], "tied weights stay tied"
    if kind == "odd":
        assert model.drawn.is_special
        assert model.rate == wanted.rate


def test_only_what_is_asked_for_is_made() -> None:
    model = deferred.build(lambda: nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100)))
    deferred.fill(model, [model[0]])
    assert not model[0].weight.is_meta
    assert model[1].weight.is_meta


def test_who_keeps_a_piece_alone_lets_go_of_the_whole() -> None:
    """As strategies do that split a model: what was written down must not hold what it has made."""
    model = deferred.build(lambda: nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100)))
    deferred.fill(model, [model[0]])
    whole = weakref.ref(model[0].weight)
    model[0].weight = nn.Parameter(model[0].weight.detach()[:25].clone())
    gc.collect()
    assert whole() is None


def test_a_model_that_was_made_as_usual_is_left_as_it_is() -> None:
    model = nn.Linear(3, 3)
    weight = model.weight
    deferred.fill(model, [model])
    assert model.weight is weight
