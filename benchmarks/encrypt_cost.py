"""What train.encrypt costs: a save onto the disk, and a load that verifies every byte, with it and without, in turns.

python benchmarks/encrypt_cost.py                     # 200 MB of state, in memory (/dev/shm): no disk hides it
python benchmarks/encrypt_cost.py --folder .          # on the disk of this directory
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import measure
import torch
from torch import nn

from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.state import Parts, Snapshot, restore
from launcher.train.checkpoint.stored import TrainState, examine
from launcher.train.ema import NoEma
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter
from launcher.train.world.ranks import Ranks

CONTENDERS = ("plain", "again", "encrypted")
"""`again` is plain too: how far two that are the same lie apart."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=16_700_000, help="in 32 layers; AdamW remembers twice as many")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = run(options, Path(folder))
    about = {"machine": measure.machine(), "load": measure.load(), "versions": measure.versions("torch", "cryptography")}
    if options.json:
        print(json.dumps({"options": {**vars(options), "folder": str(options.folder)}, **about, **result}, default=vars))
    else:
        show(about, result, options.rounds)


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    key = secrets.token_bytes(32)
    os.environ["LAUNCHER_KEY"] = key.hex()
    device = torch.device("cpu")
    model = nn.ParameterList(torch.randn(options.parameters // 32) for _ in range(32))
    optimizers = Optimizers([torch.optim.AdamW(model.parameters())], model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step()
    parts = Parts(model, optimizers, None, NoEma(), Meter(device), device)
    snapshot, stores = Snapshot(), {}
    for name in CONTENDERS:
        place = folder / name
        place.mkdir()
        claim = Claim(RunDir(place), 0)
        claim.take()
        stores[name] = CheckpointStore(
            place / "checkpoints", Ranks(0, 1), claim, 0, 2, examine=examine, key=key if name == "encrypted" else None
        )
    times: dict[str, dict[str, list[float]]] = {what: {name: [] for name in CONTENDERS} for what in ("save", "load")}
    for number in range(options.rounds + 1):
        for name in measure.rotated(CONTENDERS, number):
            files = snapshot.take(parts, TrainState(step=number), 0)
            began = time.perf_counter()
            stores[name].save(number, files)
            saved = time.perf_counter()
            checkpoint = stores[name].load(print)
            assert checkpoint is not None
            restore(parts, checkpoint, 0)
            if number:  # the first is for warming up
                times["save"][name].append(saved - began)
                times["load"][name].append(time.perf_counter() - saved)
    size = sum(path.stat().st_size for path in max((folder / "plain" / "checkpoints").glob("step_*")).iterdir())
    return {"bytes": size, "seconds": times, "ratio": {what: _ratios(each) for what, each in times.items()}}


def _ratios(times: dict[str, list[float]]) -> dict[str, Any]:
    return {name: measure.ratios(times[name], times["plain"]) for name in CONTENDERS[1:]}


def show(about: dict[str, Any], result: dict[str, Any], rounds: int) -> None:
    print(f"{measure.one_line(about['machine'])}; load {about['load']}\n{measure.one_line(about['versions'])}\n")
    print(f"{result['bytes'] / 1e6:,.1f} MB, n={rounds} each, in turns; times plain")
    for what, each in result["ratio"].items():
        for name, ratio in each.items():
            print(f"{what}  {name:<10} {ratio}")


if __name__ == "__main__":
    main()
