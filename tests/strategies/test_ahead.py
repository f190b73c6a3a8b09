"""What fsdp may be told beside how to cut: to ask for weights ahead, and to keep pieces in the host's memory. Neither changes a bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import said_by
from torch import nn

from launcher.errors import ConfigError
from launcher.train import arithmetic, local

BLOCKS = [f"blocks.{number}" for number in range(4)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What tests/strategies/ahead.py says, of each of two ranks."""
    home, program = tmp_path_factory.mktemp("ahead"), Path(__file__).with_name("ahead.py")
    return said_by(home, [[str(program), str(rank), str(home / "meeting")] for rank in range(2)])


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_nothing_that_is_trained_changes_by_a_bit(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        for option in found:
            assert {key: found[option][key] for key in ("losses", "norms", "weights")} == {
                key: found["none"][key] for key in ("losses", "norms", "weights")
            }, option
    assert len(set(ranks[0]["none"]["losses"])) == 4, "it does train"


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_each_block_asks_for_so_many_ahead(ranks: list[dict[str, Any]]) -> None:
    """What has no block, as the embedding and the head, is the model's own ("")."""
    for found in ranks:
        nobody = {name: list[str]() for name in ("", *BLOCKS)}
        assert found["none"]["forward"] == found["none"]["backward"] == nobody
        for option, count in (("prefetch=1", 1), ("prefetch=2", 2), ("prefetch=9", 9)):
            forward = {"": BLOCKS[:count], **{name: BLOCKS[place + 1 :][:count] for place, name in enumerate(BLOCKS)}}
            backward = {"": BLOCKS[::-1][:count], **{name: BLOCKS[:place][::-1][:count] for place, name in enumerate(BLOCKS)}}
            assert found[option]["forward"] == forward
            assert found[option]["backward"] == backward


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_all_is_offloaded_or_nothing(ranks: list[dict[str, Any]]) -> None:
    assert [{option for option in found if found[option]["offloaded"]} for found in ranks] == [{"cpu_offload"}] * 2


# What only a GPU would meet, as far as it can be said without one.


class Sent(Exception):
    """What would cross the network."""


@pytest.mark.parametrize(("backend", "device"), [("nccl", "meta"), ("gloo", "cpu")])
def test_what_lies_in_the_hosts_memory_is_added_up_where_the_network_is(monkeypatch: pytest.MonkeyPatch, backend: str, device: str) -> None:
    def all_reduce(tensor: torch.Tensor, group: object) -> None:
        raise Sent(tensor.device.type)

    monkeypatch.setattr(torch.distributed, "get_backend", lambda _: backend)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    with pytest.raises(Sent, match=device):
        local.summed(torch.zeros(()))


def test_fp16_by_itself_is_refused_too_where_gradients_lie_in_the_hosts_memory() -> None:
    """Of `auto` nobody knows before a GPU was asked."""
    with pytest.raises(ConfigError, match=r"strategy\.cpu_offload=true: .* type train\.precision=fp32"):
        arithmetic.scaler(torch.device("cuda"), "fp16", [nn.Parameter(torch.zeros(2))])
    assert arithmetic.scaler(torch.device("cuda"), "bf16", [nn.Parameter(torch.zeros(2))]) is None
    assert arithmetic.scaler(torch.device("cpu"), "fp16", [nn.Parameter(torch.zeros(2))]) is not None
