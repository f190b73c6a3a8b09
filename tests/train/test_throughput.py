"""Tokens a second and their share of the devices' peak: the arithmetic, and what models, tasks and devices say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from launcher.plan import Mesh
from launcher.strategies.ddp import DDP
from launcher.strategies.fsdp import FSDP
from launcher.strategies.protocol import Layout, Piece, Split, Strategy
from launcher.strategies.tp import TP
from launcher.train.record import peaks
from launcher.train.record.throughput import Throughput, flops_of
from launcher.train.tasks.classification import Classification
from launcher.train.tasks.composite import Composite
from launcher.train.tasks.language import NextToken
from models.transformer import BLOCKS, TENSOR_PARALLEL, Transformer

SIZES: dict[str, Any] = {"vocab_size": 64, "dim": 32, "layers": 3, "heads": 4, "hidden": 64}
MATRICES = 3 * (4 * 32 * 32 + 3 * 32 * 64) + (2 * 3 + 1) * 32
"""Parameters of SIZES but for embedding and head: of each block four projections and a gated layer, and all norms."""


# ---------------------------------------------------------------- arithmetic


def test_a_rate_and_its_share_of_a_peak() -> None:
    throughput = Throughput("tokens", lambda length: 1000.0 + length, peak=1e6)
    assert throughput.at(4.0) == {}, "nothing is known before the first line"
    throughput.note(counted=320.0, samples=10.0)
    rates = throughput.at(4.0)
    assert rates == pytest.approx({"tokens_per_second": 128.0, "mfu": 128.0 * 1032 / 1e6})


def test_without_a_peak_there_is_no_share_and_without_a_unit_nothing() -> None:
    without, silent = Throughput("tokens", lambda length: 1.0), Throughput("", lambda length: 1.0, peak=1.0)
    for each in (without, silent):
        each.note(32.0, 1.0)
    assert without.at(2.0) == {"tokens_per_second": 64.0}
    assert silent.at(2.0) == {}


def test_tasks_say_what_they_count_or_nothing() -> None:
    assert NextToken().unit == "tokens"
    assert not hasattr(Classification(), "unit")
    assert Composite({"text": NextToken(), "label": Classification()}).unit == "tokens", "the weight is the first's"
    assert Composite({"label": Classification(), "text": NextToken()}).unit == ""


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "free"])
def test_a_transformer_counts_what_multiplies(tied: bool) -> None:
    model = Transformer(**SIZES, tied=tied)
    assert model.flops_per_token(100) == 6 * (MATRICES + 64 * 32) + 12 * 3 * 4 * 8 * 100


def test_a_model_that_says_nothing_has_six_for_each_parameter_whole() -> None:
    pieces = {"weight": Piece((10, 20), (5, 0), (1,)), "bias": Piece((10,), (0,), (0, 1))}
    assert flops_of(nn.Linear(20, 10), pieces)(7) == 6 * 210


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes a mesh of four, of which this process is one and the others answer nothing."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield lambda *sizes, names: init_device_mesh("cpu", sizes, mesh_dim_names=names)
    dist.destroy_process_group()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "free"])
@pytest.mark.parametrize(
    ("strategy", "mesh", "sizes", "names"),
    [
        (FSDP(), Mesh(dp_shard=4), (4,), ("dp_shard",)),
        (TP(tp=4), Mesh(tp=4), (4,), ("tp",)),
        (TP(tp=2), Mesh(dp_shard=2, tp=2), (2, 2), ("dp_shard", "tp")),
    ],
    ids=["fsdp(4)", "tp(4)", "tp x fsdp(2x2)"],
)
def test_of_a_model_that_is_split_all_of_it_counts(
    world: Callable[..., Any], strategy: Strategy, mesh: Mesh, sizes: tuple[int, ...], names: tuple[str, ...], tied: bool
) -> None:
    whole, cpu = Transformer(**SIZES, tied=tied), torch.device("cpu")
    model = strategy.build(lambda: Transformer(**SIZES, tied=tied), cpu)
    split = Split(mesh.at(0), world(*sizes, names=names), Layout(BLOCKS, TENSOR_PARALLEL))
    model = strategy.prepare(SimpleNamespace(device=cpu), model, split)
    pieces = strategy.pieces(model, mesh.at(0))
    assert sum(getattr(each, "_local_tensor", each).numel() for each in model.parameters()) < 0.3 * sum(
        each.numel() for each in whole.parameters()
    )
    assert flops_of(model, pieces)(50) == whole.flops_per_token(50)
    assert flops_of(nn.Identity(), pieces)(50) == flops_of(nn.Identity(), DDP().pieces(whole, Mesh().at(0)))(50)


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize(
    ("name", "arithmetic", "tera"),
    [
        ("NVIDIA A100-SXM4-40GB", "bf16", 312.0),
        ("NVIDIA A100-SXM4-80GB", "tf32", 156.0),
        ("NVIDIA A100-PCIE-40GB", "fp16", 312.0),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5),
        ("NVIDIA A800-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756.0),
        ("NVIDIA H200", "tf32", 494.7),
        ("Tesla V100-SXM2-32GB", "fp16", 125.0),
        ("Tesla V100-SXM2-32GB", "bf16", None),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16", None),
        ("NVIDIA A10G", "bf16", None),
        ("NVIDIA L4", "bf16", 121.0),
        ("NVIDIA L40S", "bf16", 362.0),
        ("AMD Instinct MI300X", "bf16", 1307.4),
        ("Some Device", "bf16", None),
        ("", "bf16", None),
    ],
)
def test_a_peak_is_of_that_very_device_or_not_known(name: str, arithmetic: str, tera: float | None) -> None:
    found = peaks.named(name, arithmetic)
    assert found is None if tera is None else found == pytest.approx(tera * 1e12)


def test_a_peak_is_in_the_arithmetic_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda of: "NVIDIA A100-SXM4-80GB")
    found = {(precision, exact): peaks.of(device, precision, exact) for precision in ("bf16", "fp32") for exact in (False, True)}
    assert {key: value and round(value / 1e12, 1) for key, value in found.items()} == {
        ("bf16", False): 312.0,
        ("bf16", True): 312.0,
        ("fp32", False): 156.0,
        ("fp32", True): 19.5,
    }
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda of: "Tesla V100-SXM2-16GB")
    assert peaks.of(device, "fp32", False) == pytest.approx(15.7e12)
    assert peaks.of(torch.device("cpu"), "bf16", False) is None


def test_no_peak_is_more_than_another_by_mistake() -> None:
    for peak in peaks.PEAKS.values():
        known = [each for each in (peak.fp32, peak.tf32, peak.fp16) if each is not None]
        assert known == sorted(known)
        assert all(math.isfinite(each) and each > 0 for each in known)
