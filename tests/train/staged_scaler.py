"""A program: two processes, each with a parameter of its own as stages have, and fp16's scaler. In the first update the gradient of rank 1
overflows. Prints what each has after two updates: how often its parameter moved, and the scale.
"""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from torch import nn

from launcher.train import arithmetic
from launcher.train.optimizers import Optimizers


def main(file: str, looks: bool) -> None:
    child = os.fork()
    rank = int(child == 0)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    model = nn.Linear(2, 2)
    optimizers = Optimizers([torch.optim.SGD(model.parameters(), lr=0.1, fused=True)], model)
    optimizers.is_staged = True
    scaler = arithmetic.scaler(torch.device("cpu"), "fp16")
    assert scaler is not None
    moved = 0
    for step in range(2):
        value = torch.tensor(float("inf") if rank == 1 and step == 0 else 1.0)
        for parameter in model.parameters():
            parameter.grad = value * torch.ones_like(parameter) * scaler.get_scale()
        before = model.weight.detach().clone()
        if looks:
            optimizers.unscale(scaler)
        optimizers.step(scaler)
        moved += int(not torch.equal(before, model.weight))
    sys.stdout.write(json.dumps({"rank": rank, "moved": moved, "scale": scaler.get_scale()}) + "\n")  # print writes twice if unbuffered
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        os.waitpid(child, 0)
    else:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "looks")
