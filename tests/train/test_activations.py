"""Activations made again in the backward pass: the same numbers, and less kept."""

from __future__ import annotations

import pytest
import torch
from helpers import TOY, Command
from torch.autograd.graph import saved_tensors_hooks

from launcher.errors import ConfigError
from launcher.train.activations import spare
from models.resnet import resnet8
from models.transformer import BLOCKS, Transformer

TOKENS = torch.arange(4 * 32).view(4, 32) % 50


def passed(how: str) -> tuple[list[torch.Tensor], int]:
    """Gradients of a transformer with dropout, and elements kept for the backward pass by other than weights."""
    torch.manual_seed(0)
    model = Transformer(vocab_size=50, dim=32, layers=3, dropout=0.2)
    spare(model, BLOCKS, how)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * (tensor.untyped_storage().data_ptr() not in weights)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(TOKENS).square().mean()
    loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None], kept


@pytest.mark.parametrize("how", ["selective", "full"])
def test_gradients_are_equal_to_the_bit_and_less_is_kept(how: str) -> None:
    wanted, all_kept = passed("none")
    got, kept = passed(how)
    assert len(got) == len(wanted)
    assert all(map(torch.equal, got, wanted))
    assert kept < 0.3 * all_kept


def test_a_batch_norm_is_refused_for_it_would_count_twice() -> None:
    with pytest.raises(ConfigError, match=r"train\.activation_checkpointing=full: a BasicBlock has BatchNorm"):
        spare(resnet8(), ("BasicBlock",), "full")


@pytest.mark.parametrize(("words", "said"), [(("half",), "type one of none, selective, full"), (("full",), "names no blocks to do it by")])
def test_what_cannot_be_is_one_line(command: Command, words: tuple[str], said: str) -> None:
    answer = command("plan", *TOY, f"train.activation_checkpointing={words[0]}")
    assert answer.code == 2
    assert said in answer.lines[0]
