"""A program: one of two processes that hold a transformer under tp, once with scores that are whole and once with scores that stay cut.

    python cut_scores.py RANK FILE     FILE: where the processes meet

Prints JSON: by `strategy.loss_parallel` what a task gets to see in an update and in an evaluation, the loss, the norm of each gradient, and
the most elements that were gathered at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch.distributed.device_mesh import init_device_mesh

from launcher.plan import Mesh
from launcher.strategies.protocol import Layout, Split
from launcher.strategies.tp import TP
from launcher.train.local import local, whole
from launcher.train.tasks.language import NextToken
from models.transformer import BLOCKS, TENSOR_PARALLEL, Transformer

VOCABULARY = 131
"""No multiple of the processes."""


def found(strategy: TP, z_loss: float, rank: int, device_mesh: Any) -> dict[str, Any]:
    cpu = torch.device("cpu")
    torch.manual_seed(0)
    model = strategy.build(lambda: Transformer(vocab_size=VOCABULARY, dim=32, layers=1, heads=4, soft_cap=5.0), cpu)
    split = Split(Mesh(tp=2).at(rank), device_mesh, Layout(BLOCKS, TENSOR_PARALLEL))
    model = strategy.prepare(SimpleNamespace(device=cpu), model, split)
    text = torch.randint(0, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    batch, task, seen = (text[:, :-1], text[:, 1:]), NextToken(z_loss=z_loss, sample=3), dict[str, Any]()

    def watched(tokens: torch.Tensor) -> torch.Tensor:
        scores = model(tokens)
        seen["scores"] = list(local(scores).shape)
        return scores

    class Compute:
        def __call__(self, micro_batch: Any) -> None:
            step = task.step(watched, micro_batch)
            seen["loss"] = whole(step.loss).item()
            whole(step.loss).backward()

        forward = __call__

    with gathering() as sizes:
        strategy.forward_backward(model, iter([batch]), 1, Compute())
    seen["gathered"] = max(sizes)
    seen["gradients"] = {name: whole(each.grad).norm().item() for name, each in model.named_parameters()}
    metrics = task.metrics()
    with torch.no_grad():
        seen["evaluated"] = list(strategy.evaluated(model, model)(batch[0]).shape)
        metrics.update(strategy.evaluated(model, model), batch)
    return {**seen, "validation": metrics.result()["loss"], "text": metrics.text.tolist() if metrics.text is not None else []}


@contextmanager
def gathering() -> Iterator[list[int]]:
    """How many elements each gathering within gave."""
    name = "all_gather_single" if hasattr(collectives, "all_gather_single") else "all_gather_tensor"  # before torch 2.13
    real, sizes = getattr(collectives, name), list[int]()

    def counted(*args: Any, **named: Any) -> torch.Tensor:
        gave = real(*args, **named)
        sizes.append(gave.numel())
        return gave

    setattr(collectives, name, counted)
    try:
        yield sizes
    finally:
        setattr(collectives, name, real)


def main(rank: int, file: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    device_mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    of = {str(cut): found(TP(loss_parallel=cut), 0.0, rank, device_mesh) for cut in (False, True)}
    of |= {f"{cut}, z": found(TP(loss_parallel=cut), 0.1, rank, device_mesh) for cut in (False, True)}
    print(json.dumps(of))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
