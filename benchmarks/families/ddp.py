"""Plain DistributedDataParallel under torchrun: one file of state, and a flag that SIGTERM sets.

torchrun --nproc-per-node 2 ddp.py --steps 60 --output-dir out [--resume]
"""

import argparse
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a step takes longer")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    stops = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(True))

    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    saved, first = options.output_dir / "last.pt", 0
    if options.resume and saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]

    for step in range(first + 1, options.steps + 1):
        draw = torch.Generator().manual_seed(step * dist.get_world_size() + dist.get_rank())
        batch = torch.randn(8, 16, generator=draw)
        loss = (model(batch) - batch.square().mean(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(options.pause)
        is_over = torch.tensor([float(len(stops))])
        dist.all_reduce(is_over)
        if dist.get_rank() == 0:
            print(f"step {step}/{options.steps} loss {loss.item():.6f}", flush=True)
            if is_over.item() or step == options.steps:
                options.output_dir.mkdir(parents=True, exist_ok=True)
                state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                torch.save(state, saved.with_suffix(".new"))
                saved.with_suffix(".new").replace(saved)
        if is_over.item():
            break
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
