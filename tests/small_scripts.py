"""Small programs for `script=`: none of them knows the launcher, and few need torch."""

from __future__ import annotations

from pathlib import Path

SAYS = """
import json, os, subprocess, sys
import launcher.script
import models
assert models.WHOSE == "the user's", "a package of ours is in the way of one with its name"
subprocess.Popen(["sleep", "300"])  # left behind
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LAUNCHER_ATTEMPT", "LAUNCHER_RUN_DIR", "LAUNCHER_CHECKPOINT_DIR")
print("said", json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), **{name: os.environ[name] for name in names}}))
"""

COUNTS = """
import os, signal, sys, time
from pathlib import Path
stops = []
signal.signal(getattr(signal, "SIG" + sys.argv[1]), lambda *_: stops.append(1))
saved = Path(os.environ["LAUNCHER_CHECKPOINT_DIR"], "step." + os.environ["RANK"])
step = int(saved.read_text()) if "--resume" in sys.argv and saved.exists() else 0
print("begins at", step)
while step < int(sys.argv[2]):
    time.sleep(0.05)
    step += 1
    print(f"iter {step}/{sys.argv[2]} loss {1 / step:.4f}")
    if stops:
        saved.write_text(str(step))
        print("saved at", step)
        break
"""

MEETS = """
import torch
import torch.distributed as dist
from accelerate import Accelerator
print("accelerate has", Accelerator().num_processes)
one = torch.ones(1)
dist.all_reduce(one)
print("met", int(one.item()))
dist.destroy_process_group()
"""

FAILS = """
import os, sys, time
if os.environ["RANK"] == "1":
    raise ValueError("no such column: price")
time.sleep(30)
"""

DEAF = """
import time
print("deaf", flush=True)
time.sleep(60)
"""


def written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


DDP = """
import argparse, os, signal, time
from pathlib import Path
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

options = argparse.ArgumentParser()
options.add_argument("--steps", type=int)
options.add_argument("--pause", type=float, default=0.05)
options.add_argument("--resume", default="")
options = options.parse_args()
stops = []
signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
dist.init_process_group("gloo")
torch.manual_seed(0)
model = DistributedDataParallel(torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
saved, first = Path(os.environ["LAUNCHER_CHECKPOINT_DIR"], "last.pt"), 0
if options.resume == "auto" and saved.exists():
    state = torch.load(saved, weights_only=True)
    model.load_state_dict(state["model"])
    first = state["step"]
for step in range(first + 1, options.steps + 1):
    generator = torch.Generator().manual_seed(step * dist.get_world_size() + dist.get_rank())
    batch = torch.randn(4, 8, generator=generator)
    loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(options.pause)
    stop = torch.tensor([float(len(stops))])
    dist.all_reduce(stop)
    if dist.get_rank() == 0:
        print(f"iter {step}/{options.steps} loss {loss.item():.9f}", flush=True)
    if stop.item() or step == options.steps:
        if dist.get_rank() == 0:
            spare = saved.with_suffix(".new")
            torch.save({"step": step, "model": model.state_dict()}, spare)
            spare.replace(saved)
        break
dist.barrier()
dist.destroy_process_group()
"""

TWO_LINES = """
import sys, time
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from launcher.script import run

steps, pause = int(sys.argv[1]), float(sys.argv[2])
dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
first = 0
if (found := run.load()) is not None:
    state, first = found
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
for step in range(first + 1, steps + 1):
    batch = torch.randn(4, 8)
    loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(pause)
    print(f"iter {step} loss {loss.item().hex()}", flush=True)
    run.progress(step, steps, loss=loss)
    stops = run.should_stop()
    if stops or step % 5 == 0 or step == steps:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": torch.get_rng_state()}
        run.save(state, step)
    if stops:
        break
dist.barrier()
dist.destroy_process_group()
"""
