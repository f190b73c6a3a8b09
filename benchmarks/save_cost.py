"""What saving costs training: a save in the background beside a synchronous one, and no save, in turns.

python benchmarks/save_cost.py                      # resnet9 of exp=cifar
python benchmarks/save_cost.py --fill 125000000     # with so many parameters more: 1 GB of state
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import measure
import torch

from launcher.rundir.claim import Claim
from launcher.rundir.rundir import RunDir
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.saver import FLOOR_SECONDS, Interval, Saver
from launcher.train.checkpoint.state import Parts
from launcher.train.checkpoint.stored import TrainState
from launcher.train.deadline import Deadline
from launcher.train.ema import Ema
from launcher.train.optim import sgd
from launcher.train.optimizers import Optimizers
from launcher.train.record.meter import Meter
from launcher.train.world.ranks import Ranks
from models.resnet9 import ResNet9

CONTENDERS = ("none", "background", "synchronous")
MTBF_SECONDS = 4 * 3600.0
"""train.mtbf_hours by default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fill", type=int, default=0, help="parameters that only have to be saved")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="where to save; default: a temporary directory")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = run(options, Path(folder))
    about = {"machine": measure.machine(), "load": measure.load(), "versions": measure.versions("torch")}
    if options.json:
        print(json.dumps({"options": {**vars(options), "folder": None}, **about, **result}, default=vars))
    else:
        show(about, result)


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = ResNet9().to(device, memory_format=torch.channels_last)
    model.filler = torch.nn.Parameter(torch.zeros(options.fill, device=device))
    parts = Parts(model, Optimizers([sgd(model, lr=1e-3)], model), None, Ema(model, 0.99), Meter(device), device)
    images = torch.randn(options.batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (options.batch_size,), device=device)
    claim = Claim(RunDir(folder), 0)
    claim.take()
    store = CheckpointStore(folder / "checkpoints", Ranks(0, 1), claim, 0, 2)
    saver = Saver(store, Interval(1, MTBF_SECONDS), Deadline(None), 0)
    state = TrainState()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        parts.optimizers.step()
        parts.optimizers.zero_grad()

    def save(wait: bool) -> float:
        """Seconds until the loop goes on."""
        began = time.perf_counter()
        state.step += 1
        saver.begin(parts, state)
        if wait:
            saver.wait()
        return time.perf_counter() - began

    for _ in range(3):
        step()
        whole = save(wait=True)
    per_step = timed(step, 3, device) / 3
    steps = max(5, math.ceil(2 * whole / per_step))  # a block outlasts the save
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    stalls: dict[str, list[float]] = {name: [] for name in CONTENDERS[1:]}
    for number in range(options.rounds):
        for name in measure.rotated(CONTENDERS, number):
            began = time.perf_counter()
            if name != "none":
                stalls[name].append(save(wait=name == "synchronous"))
            timed(step, steps, device)
            times[name].append(time.perf_counter() - began)
            saver.wait()
    cost = {name: statistics.median(a - b for a, b in zip(times[name], times["none"], strict=True)) for name in CONTENDERS[1:]}
    interval = max(FLOOR_SECONDS, whole, saver.interval.seconds)
    size = sum(path.stat().st_size for path in max((folder / "checkpoints").glob("step_*")).iterdir())
    return {
        "device": options.device,
        "bytes": size,
        "ms_per_step": 1000 * per_step,
        "stall_ms": {name: 1000 * statistics.median(values) for name, values in stalls.items()},
        "cost_ms": {name: 1000 * value for name, value in cost.items()},
        "ratio": {name: measure.ratios(times[name], times["none"]) for name in CONTENDERS[1:]},
        "interval_seconds": interval,
        "share": {name: value / interval for name, value in cost.items()},
    }


def timed(step: Any, count: int, device: torch.device) -> float:
    began = time.perf_counter()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def show(about: dict[str, Any], result: dict[str, Any]) -> None:
    print(f"{measure.one_line(about['machine'])}; load {about['load']}\n{measure.one_line(about['versions'])}\n")
    print(f"{result['bytes'] / 1e6:,.1f} MB on {result['device']}, a step of {result['ms_per_step']:.1f} ms")
    rows = [("a save", "stall ms", "costs training ms", f"share of a run that saves every {result['interval_seconds']:.0f} s")]
    for name in CONTENDERS[1:]:
        rows.append((name, *(f"{result[key][name]:.1f}" for key in ("stall_ms", "cost_ms")), f"{100 * result['share'][name]:.3f} %"))
    print(measure.table(rows))


if __name__ == "__main__":
    main()
