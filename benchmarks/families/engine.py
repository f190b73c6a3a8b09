"""DeepSpeed in the shape of its examples: an engine with ZeRO, which steps, saves and loads.

deepspeed engine.py --steps 60 --output-dir out [--resume]
"""

import argparse
import signal
import time
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist

CONFIG = {
    "train_micro_batch_size_per_gpu": 8,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
    "zero_optimization": {"stage": 1},
    "zero_allow_untested_optimizer": True,
    "wall_clock_breakdown": False,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a step takes longer")
    parser.add_argument("--output-dir", required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--local_rank", type=int, default=0)
    options = parser.parse_args()
    stops = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(True))

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=CONFIG)
    if options.resume and Path(options.output_dir, "latest").exists():
        engine.load_checkpoint(options.output_dir)

    is_over = False
    while engine.global_steps < options.steps and not is_over:
        draw = torch.Generator().manual_seed(engine.global_steps * dist.get_world_size() + dist.get_rank())
        batch = torch.randn(8, 16, generator=draw)
        loss = (engine(batch) - batch.square().mean(1, keepdim=True)).square().mean()
        engine.backward(loss)
        engine.step()
        time.sleep(options.pause)
        asked = torch.tensor([float(len(stops))])
        dist.all_reduce(asked)
        is_over = asked.item() > 0
        if dist.get_rank() == 0:
            print(f"step {engine.global_steps}/{options.steps} loss {loss.item():.6f}", flush=True)
        if is_over or engine.global_steps == options.steps:
            engine.save_checkpoint(options.output_dir)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
