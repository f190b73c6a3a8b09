"""A program: a rank's state of about 200 MB, saved and loaded, and what that takes of memory of the host.

    python saved_memory.py save FOLDER WORLD          all ranks of a world, one after the other, of which rank 0 is measured
    python saved_memory.py load FOLDER RANK WORLD     what that rank of another world, perhaps, needs

Prints JSON: `state` (bytes of what the rank holds: weights, averages, what AdamW remembers) and peaks of resident memory in bytes: `first`
and `again`, above what there was before that save; or `loaded`, above what there was before the model.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path

import torch
from torch import nn

from launcher.plan import Mesh
from launcher.strategies.protocol import Piece
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.state import Parts, Snapshot, restore
from launcher.train.checkpoint.stored import TrainState
from launcher.train.ema import Ema
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter

CPU = torch.device("cpu")
LAYERS, WIDTH, ROWS = 16, 1024, 840
"""Rows of each layer on each of two ranks; 55 MB of weights then."""


def memory(key: str) -> int:
    """Of this process: VmHWM, the most that was resident, or VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{key}:"))


def parts(rank: int, world: int, *, trained: bool) -> Parts:
    """Of layers of 2 x 840 rows, those that are a rank's."""
    model, pieces, rows = nn.Module(), dict[str, Piece](), 2 * ROWS // world
    for number in range(LAYERS):
        weight = nn.Parameter(torch.randn(rows, WIDTH))
        setattr(model, f"layer{number}", weight)
        pieces[f"layer{number}"] = Piece((2 * ROWS, WIDTH), (rank * rows, 0), (rank,))
    optimizers = Optimizers([torch.optim.AdamW(model.parameters(), fused=True)], model)
    if trained:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizers.step()
        for parameter in model.parameters():
            parameter.grad = None
    coordinate = Mesh(dp_shard=world).at(rank)
    return Parts(model, optimizers, None, Ema(model, 0.9), Meter(CPU), CPU, pieces=pieces, coordinate=coordinate)


def size(here: Parts) -> int:
    states = [value for state in here.optimizers.each[0].state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in (*here.model.parameters(), *here.ema.shadow, *states))


def save(folder: Path, world: int) -> dict[str, int]:
    taken: dict[str, int] = {}
    for rank in reversed(range(world)):
        here, snapshot = parts(rank, world, trained=True), Snapshot()
        for turn in ("first", "again") if rank == 0 else ("other",):
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
            before = memory("VmRSS")
            for name, content in snapshot.take(here, TrainState(step=1), rank).items():
                with (folder / name).open("wb") as file:
                    for piece in content:
                        file.write(piece)
            taken[turn] = memory("VmHWM") - before
    return {"state": size(here), **taken}


def load(folder: Path, rank: int, world: int) -> dict[str, int]:
    files: dict[str, dict[str, object]] = {}
    for path in folder.iterdir():
        with path.open("rb") as file:
            digest = sha256()
            while piece := file.read(1 << 20):
                digest.update(piece)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
    parts(rank, world, trained=True)  # what torch itself takes at first
    before = memory("VmRSS")
    here = parts(rank, world, trained=False)
    Path("/proc/self/clear_refs").write_text("5")
    restore(here, Checkpoint(folder, 1, files, sum(name.endswith(".json") and name != "state.json" for name in files)), rank)
    return {"state": size(here), "loaded": memory("VmHWM") - before}


if __name__ == "__main__":
    torch.set_num_threads(1)
    verb, place, *numbers = sys.argv[1:]
    print(json.dumps((save if verb == "save" else load)(Path(place), *map(int, numbers))))
