"""What makes a model faster leaves its numbers what they are, or says by how much not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import finish, losses
from split_runs import words
from torch import nn

from launcher.config.config import TrainConfig
from launcher.errors import ConfigError
from launcher.strategies import deferred
from launcher.train import activations, faster
from models import resnet
from models.transformer import BLOCKS, Transformer

CPU = torch.device("cpu")


def small() -> Transformer:
    torch.manual_seed(0)
    return Transformer(vocab_size=96, dim=64, heads=4, layers=2)


def test_products_in_8_bits_are_near_and_the_last_layer_is_as_it_was() -> None:
    """Rounded as a GPU would: what it computes by itself, `make gpu` shows."""
    pytest.importorskip("torchao", reason="the extra fp8 is not installed")
    tokens = torch.arange(32).view(2, 16)
    expected, names = small()(tokens), [name for name, _ in small().named_parameters()]
    model = faster.in_8_bits(small(), CPU, emulate=True)
    got = model(tokens)
    assert 0 < (got - expected).abs().max() < 0.05 * expected.abs().max()
    assert type(model.head) is nn.Linear
    assert [name for name, _ in model.named_parameters()] == names
    described = deferred.build(lambda: faster.in_8_bits(small(), CPU, emulate=True))
    deferred.fill(described, [described])
    assert torch.equal(described(tokens), got), "a model that is made later is the same"


def test_a_model_without_a_layer_that_fits_is_refused() -> None:
    pytest.importorskip("torchao", reason="the extra fp8 is not installed")
    with pytest.raises(ConfigError, match="has no linear layer of multiples of 16, but for its last"):
        faster.in_8_bits(nn.Sequential(nn.Linear(15, 16), nn.Linear(16, 16)), CPU, emulate=True)


@pytest.mark.parametrize(
    ("asked", "may_be", "optimizer", "becomes"),
    [
        ("auto", True, "torch.optim.AdamW", True),
        ("auto", False, "torch.optim.AdamW", False),
        ("auto", True, "torch.optim.LBFGS", False),
        (True, True, "torch.optim.SGD", True),
        (False, True, "torch.optim.SGD", False),
    ],
)
def test_images_lie_channels_last_where_nothing_forbids_it(asked: Any, may_be: bool, optimizer: str, becomes: bool) -> None:
    assert faster.is_channels_last(TrainConfig(channels_last=asked), may_be, optimizer) is becomes


def test_batch_norm_of_less_than_a_batch_is_said() -> None:
    train = TrainConfig(batch_size=64, accumulate=2)
    said = activations.smaller_batch(resnet.resnet8(), train, 4)
    assert "statistics are now of 8 samples" in said
    assert "not of the 64 of a batch" in said
    assert not activations.smaller_batch(resnet.resnet8(groups=4), train, 4)
    assert not activations.smaller_batch(resnet.resnet8(), TrainConfig(batch_size=64), 1)


@pytest.mark.parametrize(("how", "count"), [("blocks", 2), (True, 1), (False, 0)])
def test_torch_is_told_how_to_compile(monkeypatch: pytest.MonkeyPatch, how: bool | str, count: int) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda call, **given: told.append(given) or call)
    faster.compile_it(small(), BLOCKS, TrainConfig(compile=how, compile_mode="max-autotune", compile_dynamic=True))
    assert told == [{"mode": "max-autotune", "dynamic": True}] * count


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on a CPU, and there is no g++")
@pytest.mark.parametrize("split", [*(pytest.param(name, marks=pytest.mark.full) for name in ("one", "pp(2)")), "fsdp(2)"])
def test_blocks_that_are_compiled_train_what_the_others_do(tmp_path: Path, split: str) -> None:
    found = []
    for number, how in enumerate(("false", "blocks")):
        more = (f"train.compile={how}", "train.steps=4", "id=" + str(number))
        done = finish(tmp_path, words(tmp_path, str(number), split, *more), timeout=280)
        assert done.returncode == 0, done.stderr
        found.append(losses(tmp_path / "runs" / "shakespeare" / str(number)))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
