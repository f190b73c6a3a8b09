"""A program: one of two processes that try out models and losses in parts of sequences.

    python tried.py RANK FILE     FILE: where the processes meet

Prints JSON: of each case the line that refuses it, or how far outputs that are evaluated are from the whole model's, and whether the trial
left weights, buffers and modes as they were.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F

from launcher.errors import ConfigError
from launcher.plan import Mesh
from launcher.strategies.cp import CP
from launcher.strategies.protocol import Layout, Split

KINDS, WIDTH, HEADS, LENGTH = 50, 16, 2, 32
Losses = Callable[[Any, Any], tuple[torch.Tensor, Any]]


class Block(nn.Module):
    """Its last layer begins at zero, as many do: at first nobody sees what comes before it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.mix, self.out = kind, nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.near = nn.Conv1d(WIDTH, WIDTH, 3, padding=1) if kind == "convolution" else None
        nn.init.zeros_(self.out.weight)

    def forward(self, x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        given = x * tables[0] + tables[1]
        q, k, v = (each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in self.mix(given).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if self.kind == "by hand":
            mixed = mixed + (q @ k.mT).softmax(-1) @ v
        found = mixed.transpose(1, 2).flatten(2)
        if self.near is not None:
            found = found + self.near(x.mT).mT
        if self.kind == "mean":
            found = found * x.mean(1, keepdim=True)
        return x + self.out(found)


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.embed, self.head, self.drop = kind, nn.Embedding(KINDS, WIDTH), nn.Linear(WIDTH, KINDS), nn.Dropout(0.1)
        self.blocks = nn.ModuleList(Block(kind) for _ in range(2))
        self.calls = nn.Buffer(torch.zeros(()))
        if kind == "half":
            self.to(torch.bfloat16)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        angles, x = torch.arange(tokens.shape[1])[:, None] * torch.linspace(0.1, 1, WIDTH), self.drop(self.embed(tokens))
        tables = (angles.cos()[None].to(x.dtype), angles.sin()[None].to(x.dtype))
        for block in self.blocks:
            x = block(x, tables)
        return self.head(x.cumsum(1) if self.kind == "sum of those before" else x).float()


class Stack(nn.Module):
    """Of torch's own layers, which evaluate by kernels of their own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(KINDS, WIDTH), nn.Linear(WIDTH, KINDS)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(WIDTH, HEADS, WIDTH, batch_first=True) for _ in range(2))
        self.masks = kind == "torch's, masked"

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, length = self.embed(tokens), tokens.shape[1]
        for block in self.blocks:
            x = block(x, src_mask=torch.ones(length, length, dtype=torch.bool).triu(3) if self.masks else None)
        return self.head(x)


def each_by_itself(model: Any, batch: Any) -> tuple[torch.Tensor, int]:
    return F.cross_entropy(model(batch["tokens"]).mT, batch["targets"], reduction="sum"), batch["targets"].numel()


def mean_of_samples(model: Any, batch: Any) -> tuple[torch.Tensor, int]:
    return F.cross_entropy(model(batch["tokens"]).mT, batch["targets"]) * len(batch["tokens"]), len(batch["tokens"])


def sum_over_samples(model: Any, batch: Any) -> tuple[torch.Tensor, int]:
    return F.cross_entropy(model(batch["tokens"]).mT, batch["targets"], reduction="sum"), len(batch["tokens"])


def of_the_next(model: Any, batch: Any) -> tuple[torch.Tensor, int]:
    return F.cross_entropy(model(batch["tokens"])[:, :-1].mT, batch["tokens"][:, 1:]) * len(batch["tokens"]), len(batch["tokens"])


def _but_some(batch: Any) -> torch.Tensor:
    return batch["targets"].masked_fill(batch["counts"] == 0, -100)


def mean_of_some(model: Any, batch: Any) -> tuple[torch.Tensor, int]:
    return F.cross_entropy(model(batch["tokens"]).mT, _but_some(batch)) * len(batch["tokens"]), len(batch["tokens"])


def sum_of_some(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return F.cross_entropy(model(batch["tokens"]).mT, _but_some(batch), reduction="sum"), batch["counts"].sum()


def drawn(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    hidden = torch.rand(batch["tokens"].shape) < 0.3
    losses = F.cross_entropy(model(batch["tokens"].masked_fill(hidden, 0)).mT, batch["tokens"], reduction="none")
    return (losses * hidden).sum(), hidden.sum()


class Compute:
    def __init__(self, model: Any, losses: Losses) -> None:
        self.model, self._losses = model, losses

    def measured(self, batch: Any) -> tuple[torch.Tensor, Any]:
        return self._losses(self.model, batch)

    def __call__(self, batch: Any) -> None:
        loss, _ = self._losses(self.model, batch)
        loss.backward()

    def forward(self, batch: Any) -> torch.Tensor:
        return self._losses(self.model, batch)[0]


def batch() -> dict[str, torch.Tensor]:
    """Of the second half fewer tokens count."""
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(KINDS, (2, 3, LENGTH), generator=generator)
    return {"tokens": tokens, "targets": targets, "counts": (torch.arange(LENGTH) < 20).long().expand(3, -1).contiguous()}


def tried(kind: str, losses: Losses, rank: int, device_mesh: Any) -> dict[str, Any]:
    factory, block, along = (Stack, "TransformerEncoderLayer", "src") if kind.startswith("torch's") else (Net, "Block", "x")

    def made() -> Any:
        torch.manual_seed(0)
        return factory(kind)

    one, strategy = made(), CP()
    names = {along: 1} if kind == "unnamed" or factory is Stack else {along: 1, "tables": 1}
    split = Split(Mesh(cp=2).at(rank), device_mesh, Layout((block,), context_parallel=names))
    model = strategy.prepare(SimpleNamespace(device=torch.device("cpu")), strategy.build(made, torch.device("cpu")), split)
    model.blocks[1].eval()
    before = torch.get_rng_state()
    try:
        strategy.forward_backward(model, iter([batch()]), 1, Compute(model, losses))
    except ConfigError as error:
        return {"refused": str(error)}
    with torch.no_grad():
        one.eval()
        is_kept = all(torch.equal(part.full_tensor(), whole) for part, whole in zip(model.parameters(), one.parameters(), strict=True))
        is_kept &= getattr(model, "calls", 1) == 1 and (model.training, model.blocks[1].training) == (True, False)
        is_kept &= losses is drawn or factory is Stack or _drawn_once(before)
        model.eval()
        outputs, expected = strategy.evaluated(model, model)(batch()["tokens"]), one(batch()["tokens"])
    return {"refused": "", "far": ((outputs - expected).norm() / expected.norm()).item(), "is kept": bool(is_kept)}


def _drawn_once(before: torch.Tensor) -> bool:
    """Whether all that was drawn since is what one pass drops."""
    now = torch.get_rng_state()
    torch.set_rng_state(before)
    F.dropout(torch.ones(3, LENGTH, WIDTH), 0.1)
    return torch.equal(now, torch.get_rng_state())


CASES: dict[str, tuple[str, Losses]] = {
    **{kind: (kind, each_by_itself) for kind in ("plain", "half", "torch's", "torch's, masked", "unnamed")},
    **{kind: (kind, each_by_itself) for kind in ("convolution", "mean", "by hand", "sum of those before")},
    **{each.__name__: ("plain", each) for each in (mean_of_samples, sum_over_samples, of_the_next, mean_of_some, sum_of_some, drawn)},
}


def main(rank: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("cp",))
    print(json.dumps({name: tried(kind, losses, rank, mesh) for name, (kind, losses) in CASES.items()}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
