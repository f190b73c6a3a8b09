"""Rows of gpu.py about models: split over a world of one by NCCL, in fewer bits, compiled."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.gpu_rows import RUNS, launch, row

TEXT = "Now is the winter of our discontent made glorious summer by this sun of York.\n" * 400


@row("fully_shard in an NCCL world of one, in bf16, trains; what its checkpoint holds goes on equal to the last bit", 90, on_cpu=True)
def sharded(device: str) -> str:
    """gloo on a CPU."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    from launcher.train.checkpoint.manifest import Checkpoint
    from launcher.train.checkpoint.state import Snapshot, restore
    from launcher.train.checkpoint.stored import TrainState

    meet = Path("meet").resolve()
    dist.init_process_group("nccl" if device == "cuda" else "gloo", init_method=f"file://{meet}", rank=0, world_size=1)
    mesh = init_device_mesh(device, (1,), mesh_dim_names=("dp_shard",))
    first, step = _sharded(device, mesh, seed=0)
    losses = [step(number) for number in range(4)]
    assert losses[-1] < losses[0], losses
    assert all(isinstance(each, DTensor) for each in first.model.parameters()), "nothing is sharded"
    place = Path("step_000000004")
    place.mkdir()
    for name, content in Snapshot().take(first, TrainState(step=4), 0).items():
        (place / name).write_bytes(b"".join(content))
    entries = {each.name: {"bytes": each.stat().st_size, "sha256": sha256(each.read_bytes()).hexdigest()} for each in place.iterdir()}
    expected = [step(number) for number in range(4, 7)]
    second, again = _sharded(device, mesh, seed=1)
    restore(second, Checkpoint(place, 4, entries, world=1), 0)
    got = [again(number) for number in range(4, 7)]
    dist.destroy_process_group()
    assert got == expected, f"{got}, not {expected}"
    return f"{torch.cuda.get_device_name() if device == 'cuda' else 'gloo'}: losses {losses[0]:.3f} to {got[-1]:.3f}"


def _sharded(device: str, mesh: Any, seed: int) -> tuple[Any, Any]:
    """Parts of a small transformer, and a step of it."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    from launcher.strategies.protocol import Piece
    from launcher.train.checkpoint.state import Parts
    from launcher.train.ema import Ema
    from launcher.train.norm import Norm
    from launcher.train.optimizers import Optimizers
    from launcher.train.record.meter import Meter
    from models.transformer import Transformer

    where = torch.device(device, 0) if device == "cuda" else torch.device("cpu")
    torch.manual_seed(seed)
    model = Transformer(dim=64, layers=2, heads=4).to(where)
    for module in (*model.blocks, model):
        fully_shard(module, mesh=mesh, mp_policy=MixedPrecisionPolicy(torch.bfloat16, torch.float32))
    optimizers = Optimizers([torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)], model)
    pieces = {name: Piece(tuple(each.shape), (0,) * each.ndim, (0,)) for name, each in model.named_parameters()}
    ema, norm = Ema(model, 0.9), Norm(optimizers, 1.0, pieces)
    tokens = torch.randint(0, 256, (8, 64), generator=torch.Generator().manual_seed(2)).to(where)

    def step(number: int) -> float:
        optimizers.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens).float().flatten(0, 1), tokens.roll(-1, 1).flatten())
        loss.backward()
        norm.clip()
        optimizers.make_way()
        optimizers.step()
        ema.update(number)
        return float(loss)

    return Parts(model, optimizers, None, ema, Meter(where), where, pieces=pieces), step


def language(device: str, name: str, *words: str) -> list[float]:
    """The losses of a small language model, by the launcher."""
    text = Path("york.txt")
    text.write_text(TEXT)
    fixed = ("+exp=shakespeare", f"data.path={text}", f"runs_dir={RUNS}", f"id={name}", "train.batch_size=32", "train.round_batch=false")
    sizes = ("model.dim=128", "model.layers=2", "model.heads=4", "data.length=128", "task.sample=0", "train.log_every=1", "train.steps=20")
    device_words = (f"cluster.device={device}", "cluster.processes_per_node=1")
    done = subprocess.run(launch(*fixed, *sizes, *device_words, *words), capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-600:]
    lines = [json.loads(line) for line in (RUNS / "shakespeare" / name / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == "train"]


@row("bf16, and fp16 with its scaler, learn what fp32 does, and so does strategy=fsdp", 150)
def bits(device: str) -> str:
    whole = language(device, "fp32", "train.precision=fp32")
    told = []
    for name, *words in (
        ("bf16", "train.precision=bf16"),
        ("fp16", "train.precision=fp16"),
        ("fsdp", "strategy=fsdp", "train.precision=bf16"),
    ):
        losses = language(device, name, *words)
        assert abs(losses[-1] - whole[-1]) < 0.05 * whole[-1], f"{name}: {losses[-1]} after {len(losses)} steps, fp32 {whole[-1]}"
        told.append(f"{name} {losses[-1]:.3f}")
    return f"loss after 20 steps: fp32 {whole[-1]:.3f}, {', '.join(told)}"


@row("what is compiled, whole or block by block, learns what it does without", 200)
def compiled(device: str) -> str:
    plain = language(device, "plain", "train.precision=fp32")
    told = []
    for how in ("true", "blocks"):
        losses = language(device, f"compile-{how}", "train.precision=fp32", f"train.compile={how}")
        difference = max(abs(one - other) / other for one, other in zip(losses, plain, strict=True))
        assert difference < 1e-3, f"train.compile={how}: {difference}"
        told.append(f"{how} {difference:.1e}")
    return f"largest difference of a loss: {', '.join(told)}"


@row("products in 8 bits learn what bf16 does, where the GPU has them and torchao is there", 120)
def fp8(device: str) -> str:
    import torch

    from launcher.train.faster import CAPABILITY

    if torch.cuda.get_device_capability() < CAPABILITY or importlib.util.find_spec("torchao") is None:
        return "not shown: torchao is not installed, or the GPU has no such products"
    whole, losses = language(device, "bf16", "train.precision=bf16"), language(device, "fp8", "train.precision=bf16", "train.fp8=true")
    assert losses != whole, "nothing was computed in 8 bits"
    assert abs(losses[-1] - whole[-1]) < 0.05 * whole[-1], f"{losses[-1]}, bf16 {whole[-1]}"
    return f"loss after 20 steps: bf16 {whole[-1]:.3f}, fp8 {losses[-1]:.3f}"
