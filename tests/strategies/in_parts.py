"""A program: one of two processes that compute on a part of each sequence, by a model that says nothing of it.

    python in_parts.py RANK FILE     FILE: where the processes meet

Prints JSON: of each kind of attention how far loss, gradients and evaluated outputs are from those of the whole model, relative, how many
tokens a block was given, and for what is no chain of sequences the line that says so.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention as by_another_name

from launcher.errors import ConfigError
from launcher.plan import Mesh
from launcher.strategies.cp import CP
from launcher.strategies.protocol import Layout, Split
from launcher.train import activations
from launcher.train.local import whole

LENGTH, WIDTH, HEADS = 8, 8, 2


class Block(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.mix, self.kind, self.given = nn.Linear(WIDTH, 3 * WIDTH), kind, 0

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, *, shift: torch.Tensor) -> torch.Tensor:
        self.given = x.shape[1]
        q, k, v = (each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.mix(x + shift).chunk(3, -1))
        if self.kind == "another name":
            mixed = by_another_name(q, k, v)
        elif self.kind == "memory":
            memory = torch.ones(len(x), HEADS, 3, WIDTH // HEADS)
            mixed = F.scaled_dot_product_attention(q, k, v) + F.scaled_dot_product_attention(q, memory, memory)
        elif self.kind == "shared":
            mixed = F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], is_causal=True, scale=0.3, enable_gqa=True)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None and self.kind != "all")
        return x + mixed.transpose(1, 2).flatten(2)


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.places, self.blocks = kind, nn.Embedding(LENGTH, WIDTH), nn.ModuleList(Block(kind) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        mask = {
            "window": torch.ones(length, length, dtype=torch.bool).tril().triu(-2),
            "padding": (torch.arange(length) < length - 2).expand(len(x), 1, 1, length),
        }.get(self.kind)
        places, shift = self.places(torch.arange(length)), x.mean(1, keepdim=True) * torch.linspace(0, 1, length)[None, :, None]
        x = x + places
        for block in self.blocks:
            x = block(x, mask, shift=shift)
        return x.mean(1) if self.kind == "mean" else x


class Compute:
    """The mean over tokens and samples of a loss that differs from token to token."""

    def __init__(self, model: Any) -> None:
        self.model, self.loss = model, 0.0

    def __call__(self, batch: Any) -> None:
        given, target = batch
        loss = (self.model(given) - target).square().mean()
        self.loss = loss.item()
        loss.backward()

    def measured(self, batch: Any) -> tuple[torch.Tensor, int]:
        """Over as many samples in each part."""
        given, target = batch
        return (self.model(given) - target).square().mean() * len(given), len(given)

    forward = __call__


def made(kind: str) -> Net:
    torch.manual_seed(0)
    return Net(kind)


def batch(length: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, length, WIDTH, generator=generator), torch.randn(3, length, WIDTH, generator=generator)


def held(strategy: CP, kind: str, rank: int, device_mesh: Any, again: str = "none") -> Any:
    model = strategy.build(lambda: made(kind), torch.device("cpu"))
    activations.spare(model, ("Block",), again)
    split = Split(Mesh(cp=2).at(rank), device_mesh, Layout(("Block",), context_parallel={"x": 1, "shift": 1}))
    return strategy.prepare(SimpleNamespace(device=torch.device("cpu")), model, split)


def compared(kind: str, rank: int, device_mesh: Any, again: str = "none") -> dict[str, Any]:
    strategy, one = CP(), Compute(made(kind))
    one(batch())
    model = held(strategy, kind, rank, device_mesh, again)
    own = Compute(model)
    strategy.forward_backward(model, iter([batch()]), 1, own)
    given, losses = model.blocks[0].given, [0.0, 0.0]
    dist.all_gather_object(losses, own.loss)
    gradients = {name: each.grad for name, each in one.model.named_parameters()}
    with torch.no_grad():
        outputs = strategy.evaluated(model, model)(batch()[0])
        odd = strategy.evaluated(model, model)(batch()[0][:, :7])
        far = {
            "loss": abs(sum(losses) / 2 / one.loss - 1),
            "gradients": max(_far(whole(each.grad), gradients[name]) for name, each in model.named_parameters()),
            "outputs": _far(outputs, one.model(batch()[0])),
            "of a length that cannot be cut": _far(odd, one.model(batch()[0][:, :7])),
        }
    return {"far": max(far.values()), "given": given, "is torch's again": F.scaled_dot_product_attention is by_another_name}


def _far(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def refused(kind: str, given: Any, rank: int, device_mesh: Any) -> str:
    strategy = CP()
    model = held(strategy, kind, rank, device_mesh)
    try:
        strategy.forward_backward(model, iter([given]), 1, Compute(model))
    except ConfigError as error:
        return str(error)
    return ""


def main(rank: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("cp",))
    found: dict[str, Any] = {kind: compared(kind, rank, mesh) for kind in ("causal", "shared", "all", "window", "padding", "memory")}
    found |= {f"causal, {again}": compared("causal", rank, mesh, again) for again in ("full", "selective")}
    labels = torch.zeros(3, dtype=torch.int64)
    found["refused"] = {
        "label": refused("all", (batch()[0], labels), rank, mesh),
        "length": refused("all", batch(6), rank, mesh),
        "name": refused("another name", batch(), rank, mesh),
        "mean": refused("mean", batch(), rank, mesh),
    }
    print(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
