"""In the shape of torchtitan: a device mesh, fully_shard, distributed checkpoints in folders step-N, the newest whole one taken up.

torchrun --nproc-per-node 2 titan.py --steps 60 --output-dir out
"""

import argparse
import re
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

WORDS, LENGTH, WIDTH, BATCH = 64, 16, 32, 8


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH) for _ in range(2))
        self.mlp = torch.nn.Sequential(torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norms[0](x)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        x = x + self.attention(hidden, hidden, hidden, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x))


class Transformer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WIDTH)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(2))
        self.head = torch.nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class State:
    """What a checkpoint has, in pieces as the mesh has them."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer, self.step = model, optimizer, 0

    def state_dict(self) -> dict:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": torch.tensor(self.step)}

    def load_state_dict(self, found: dict) -> None:
        set_state_dict(self.model, self.optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"])
        self.step = int(found["step"])


def newest(folder: Path) -> Path | None:
    """`.metadata` is what a save writes last."""
    found = {int(match[1]): path for path in folder.glob("step-*") if (match := re.fullmatch(r"step-(\d+)", path.name))}
    whole = [step for step, path in found.items() if (path / ".metadata").exists()]
    return found[max(whole)] if whole else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a step takes longer")
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args()
    stops = []
    signal.signal(signal.SIGTERM, lambda *_: stops.append(True))

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("dp_shard",))
    torch.manual_seed(0)
    model = Transformer()
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    state = State(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    if (found := newest(options.output_dir)) is not None:
        dcp.load({"app": state}, checkpoint_id=str(found))

    is_over = False
    while state.step < options.steps and not is_over:
        state.step += 1
        draw = torch.Generator().manual_seed(state.step * dist.get_world_size() + dist.get_rank())
        tokens = (torch.arange(LENGTH + 1) + torch.randint(WORDS, (BATCH, 1), generator=draw)) % WORDS
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        time.sleep(options.pause)
        asked = torch.tensor([float(len(stops))])
        dist.all_reduce(asked)
        is_over = asked.item() > 0
        if dist.get_rank() == 0:
            print(f"step: {state.step}/{options.steps} loss: {loss.item():.6f}", flush=True)
        if is_over or state.step % 20 == 0 or state.step == options.steps:
            dcp.save({"app": state}, checkpoint_id=str(options.output_dir / f"step-{state.step}"))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
