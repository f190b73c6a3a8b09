"""A step under strategy=fsdp beside the same step in a loop written by hand around fully_shard: no more than 1.02 times its time.

    python benchmarks/fsdp_overhead.py                    # two processes with gloo on this machine, about three minutes

Three contenders take turns in each of two processes, in blocks of some steps and in an order that rotates: A, `launcher.train.loop.train`
with everything that a run has switched on; B, the loop below; B', the same again. B'/B is what the measurement itself cannot tell apart.
Each has its own copy of the transformer of exp=shakespeare, on the same tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

from benchmarks import measure
from benchmarks.our_loop import Turns, make_job
from data.resident import Resident
from data.text import Text
from launcher.config import targets
from launcher.config.config import Config
from launcher.plan import Mesh
from launcher.train import loop
from launcher.train.local import local

ROOT = Path(__file__).resolve().parent.parent
BOUND = 1.02
WORLD = 2
WARM_UP_ROUNDS = 2
CONTENDERS = ("A", "B", "B'")
LABELS = {"A": "A   launcher, strategy=fsdp", "B": "B   by hand, fully_shard", "B'": "B'  by hand again"}
CPU = torch.device("cpu")


def by_hand(config: dict[str, Any], mesh: DeviceMesh, loader: Resident, block: int) -> Iterator[torch.nn.Module]:
    """What a competent person writes for this one experiment; not one line of launcher/train. Stops after every `block` steps."""
    torch.manual_seed(config["seed"])
    model = targets.build(config["model"])
    for layer in model.blocks:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    decay = config["optim"]["weight_decay"]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config["optim"]["lr"], betas=tuple(config["optim"]["betas"]), fused=True)
    steps, step, total = config["train"]["steps"], 0, torch.zeros(())
    while True:
        for tokens, next_tokens in loader.steps(step // loader.steps_per_epoch):
            for group in optimizer.param_groups:
                group["lr"] = config["optim"]["lr"] * 0.5 * (1 + math.cos(math.pi * (step + 1) / steps))
            loss = F.cross_entropy(model(tokens).flatten(0, 1), next_tokens.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config["train"]["clip_norm"])
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach()
            step += 1
            if step % block == 0:
                print(f"step {step}  loss {total.item() / block:.4f}")
                total.zero_()
                yield model


def read_config(options: argparse.Namespace, text: Path, steps: int) -> dict[str, Any]:
    ConfigStore.instance().store(name="schema", node=Config)
    data = [f"data.path={text}", f"data.length={options.length}", f"train.batch_size={options.batch_size}", "task.sample=0"]
    cut = [
        f"train.steps={steps}",
        f"train.log_every={options.block}",
        "train.eval_every=0",
        "schedule.warmup=0",
        f"train.save_every={2 * steps}",
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config = compose("config", overrides=["+exp=shakespeare", "strategy=fsdp", *data, *cut, "train.precision=fp32"])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def measure_rank(rank: int, options: argparse.Namespace, folder: str) -> None:
    """One process of the world; the first writes the times."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(WORLD),
        "LOCAL_WORLD_SIZE": str(WORLD),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    mesh, coordinate = init_device_mesh("cpu", (WORLD,), mesh_dim_names=("dp_shard",)), Mesh(dp_shard=WORLD).at(rank)
    rounds = options.rounds + WARM_UP_ROUNDS
    order = [name for number in range(rounds) for name in measure.rotated(CONTENDERS, number)]
    config = read_config(options, Path(folder, "text"), rounds * options.block + 1)  # one more step: A's last saves

    def new_loader() -> Resident:
        made = Resident(Text(str(Path(folder, "text")), options.length), batch_size=options.batch_size, accumulate=1, seed=0)
        made.open(coordinate, CPU)
        return made

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        plain = {name: by_hand(config, mesh, new_loader(), options.block) for name in CONTENDERS[1:]}
        turns = Turns(new_loader(), options.block, order, plain)
        job = make_job(config, turns, Path(folder, "run"), "fp32", rank, WORLD, mesh)
        assert not loop.train(job)
        job.board.close()
    ours = [local(parameter) for parameter in job.parts.model.parameters()]
    theirs = [local(parameter) for parameter in next(plain["B"]).parameters()]
    apart = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    if rank == 0:
        Path(folder, "times.json").write_text(json.dumps({"times": turns.times, "apart": apart}))
    del job
    dist.barrier()
    dist.destroy_process_group()


def show(options: argparse.Namespace, before: str, found: dict[str, Any]) -> float:
    wall = {name: [1000 * seconds / options.block for seconds, _ in found["times"][name][WARM_UP_ROUNDS:]] for name in CONTENDERS}
    print(f"exp=shakespeare under fsdp({WORLD}), batch {options.batch_size} x {options.length} tokens, fp32, 1 thread each; ", end="")
    print(f"n={options.rounds} rounds of {options.block} steps each, a log line in every block")
    print(f"{measure.one_line(measure.machine())}; load before {before}, after {measure.load()}")
    print(measure.one_line(measure.versions("torch", "accelerate")), end="\n\n")
    rows = [("contender", "ms/step (median)", "wall / B [95 %]")]
    for name, label in LABELS.items():
        ratio = measure.ratios(wall[name], wall["B"]).as_ratio() if name != "B" else "1"
        rows.append((label, f"{sorted(wall[name])[len(wall[name]) // 2]:.2f}", ratio))
    print(measure.table(rows), end="\n\n")
    result = measure.ratios(wall["A"], wall["B"]).median
    print(f"weights of A and B in the end: at most {found['apart']:.1e} apart")
    print(f"bound {BOUND}: {'PASS' if result <= BOUND else 'over'}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30, help="of one block of each contender")
    parser.add_argument("--block", type=int, default=5, help="steps in a block, with one log line in each")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=128, help="tokens of a sample")
    options = parser.parse_args()
    before = measure.load()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "run").mkdir()
        Path(folder, "text").write_bytes(bytes(range(32, 127)) * 2000)
        processes.spawn(measure_rank, (options, folder), WORLD)
        show(options, before, json.loads(Path(folder, "times.json").read_text()))


if __name__ == "__main__":
    main()
