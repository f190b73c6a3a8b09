"""precision=auto takes what the device computes, and says why."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from launcher.errors import ConfigError
from launcher.train import precision

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A card of any generation: there is none on the machines that run these tests."""
    card = SimpleNamespace(capability=(9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card.capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    return card


@pytest.mark.parametrize(("capability", "expected"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")])
def test_auto_follows_the_generation_of_the_card(gpu: SimpleNamespace, capability: tuple[int, int], expected: str) -> None:
    gpu.capability = capability
    chosen, why = precision.choose("auto", GPU)
    assert chosen == expected
    assert "a card, compute capability" in why


def test_bf16_on_a_card_without_it_is_refused_with_what_to_type(gpu: SimpleNamespace) -> None:
    gpu.capability = (7, 0)
    with pytest.raises(ConfigError, match=r"^train\.precision=bf16: .*; type train\.precision=fp16$"):
        precision.choose("bf16", GPU)


def test_what_is_asked_for_is_taken(gpu: SimpleNamespace) -> None:
    assert precision.choose("fp32", GPU) == ("fp32", "asked for")
    assert precision.choose("bf16", torch.device("cpu"))[0] == "bf16"
