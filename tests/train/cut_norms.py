"""A program: two processes, each with pieces of the same parameters, that LARS and LAMB step as if they were whole. Prints, of each process
and optimizer, the farthest that a number is off after three updates, and that a norm is.
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from launcher.train.layerwise import LAMB, LARS, norms

SHAPES = ((3, 2), (4,), (2, 3))
HOW = ([Replicate(), Shard(0)], [Replicate(), Shard(0)], [Replicate(), Replicate()])
"""Of three rows one process has two; a vector is cut as well; the last matrix both have."""


def main(file: str) -> None:
    child = os.fork()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=int(child == 0), world_size=2)
    mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("dp_replicate", "dp_shard"))
    for kind in (LARS, LAMB):
        torch.manual_seed(1)
        whole = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in SHAPES]
        cut = [nn.Parameter(distribute_tensor(each.detach().clone(), mesh, way)) for each, way in zip(whole, HOW, strict=True)]
        both = [kind(each, lr=0.3, weight_decay=0.1) for each in (whole, cut)]
        for _ in range(3):
            for one, other, way in zip(whole, cut, HOW, strict=True):
                one.grad = torch.randn_like(one)
                other.grad = distribute_tensor(one.grad.clone(), mesh, way)
            for each in both:
                each.step()
        off = [(other.full_tensor() - one).abs().max().item() for one, other in zip(whole, cut, strict=True)]  # pyright: ignore
        found = norms(cut, [each.to_local().detach() for each in cut])  # pyright: ignore
        norm_off = (found - torch.stack([each.detach().norm() for each in whole])).abs().max().item()
        sys.stdout.write(json.dumps({"kind": kind.__name__, "off": max(off), "norm_off": norm_off}) + "\n")
        sys.stdout.flush()
    dist.barrier()
    dist.destroy_process_group()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
