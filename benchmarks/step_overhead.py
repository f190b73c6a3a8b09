"""A step through our loop beside the same step in a plain PyTorch loop: no more than 1.02 times its time.

    python benchmarks/step_overhead.py                    # resnet9 of exp=cifar on synthetic images, about two minutes
    python benchmarks/step_overhead.py --model tiny       # almost no arithmetic: the overhead in microseconds

Four contenders take turns in one process, in blocks of some steps and in an order that rotates: A, the real
`launcher.train.loop.train` with everything that a run has switched on; B, benchmarks/plain_loop.py; B', the same plain loop again; C, the
plain loop that also counts accuracy and writes a line of JSON where ours does: what A costs above C is overhead, not work.
B'/B is what the measurement itself cannot tell apart. Each has its own copy of the model, the same seeds and the same batches; in the
end the weights must be equal to the bit. Every block has a log line, more often than `train.log_every` asks for: no ratio hides it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from benchmarks import measure
from benchmarks.our_loop import CONTENDERS, Times, Turns, make_job
from benchmarks.plain_loop import plain_loop
from data.resident import Resident
from data.vision.images import Images, ImageSource, Recipe
from launcher.config import targets
from launcher.config.config import Config
from launcher.plan import Mesh
from launcher.train import loop
from launcher.train.job import Job
from launcher.train.precision import choose

ROOT = Path(__file__).resolve().parent.parent
BOUND = 1.02
CPU = torch.device("cpu")
WARM_UP_ROUNDS = 2
LABELS = {"A": "A   launcher", "B": "B   plain loop", "B'": "B'  plain again", "C": "C   plain, counts and logs"}
MODELS = {"resnet9": [], "tiny": ["model.widths=[4]", "model.residuals=[0]"]}
"""Overrides of exp=cifar; `tiny` is one convolution of 4 channels, a norm and a classifier."""
PRESETS = {"resnet9": {"rounds": 30, "batch_size": 256, "block": 5}, "tiny": {"rounds": 150, "batch_size": 8, "block": 50}}


def read_config(model: str, batch_size: int, block: int, steps: int) -> dict[str, Any]:
    """exp=cifar as the launcher composes it, cut to so many steps, with a log line in every block."""
    ConfigStore.instance().store(name="schema", node=Config)
    cut = [f"train.batch_size={batch_size}", f"train.log_every={block}", f"train.steps={steps}"]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        config = compose("config", overrides=["+exp=cifar", *MODELS[model], *cut, "train.eval_every=0", f"train.save_every={2 * steps}"])
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return plain


def make_loader(kind: str, config: dict[str, Any]) -> Any:
    """A function that makes one contender's own loader; all share the images."""
    batch_size, seed = config["train"]["batch_size"], config["seed"]
    if kind == "cifar":
        pinned = targets.build({**config["data"], "source": "files"}).prepare()
        data = targets.build({**config["data"], **pinned})
    else:
        data = Synthetic(config, max(20 * batch_size, 2048))

    def make() -> Resident:
        loader = Resident(data, batch_size=batch_size, accumulate=1, seed=seed)
        loader.open(Mesh().at(0), CPU)
        return loader

    return make


class Synthetic:
    """Images of noise, augmented as exp=cifar does."""

    def __init__(self, config: dict[str, Any], count: int) -> None:
        draw = np.random.default_rng(config["seed"])
        images = draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self._images = Images(images, draw.integers(0, 10, count), np.full(3, 127.5), np.full(3, 64.0), CPU)
        self._recipe = Recipe(config["data"]["pad"], config["data"]["flip"], config["data"]["cutout"])

    def part(self, split: str, device: torch.device) -> ImageSource | None:
        return ImageSource(self._images, np.arange(len(self._images.labels)), self._recipe) if split == "train" else None


def make_model(config: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(config["seed"])
    return targets.build(config["model"]).to(CPU, memory_format=torch.channels_last)


def make_plain(config: dict[str, Any], model: torch.nn.Module, loader: Any, bf16: bool, logs: TextIO | None = None) -> Iterator[Any]:
    optim, schedule, train = config["optim"], config["schedule"], config["train"]
    return plain_loop(
        model, loader, steps=train["steps"], lr=optim["lr"], momentum=optim["momentum"], weight_decay=optim["weight_decay"],
        label_smoothing=config["task"]["label_smoothing"], peak=schedule["peak"], start=schedule["start"], final=schedule["final"],
        ema_decay=train["ema_decay"], bf16=bf16, log_every=train["log_every"], logs=logs,
    )  # fmt: skip


def equal(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    left, right = ours.state_dict(), theirs.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in right)


def equal_averages(job: Job, model: torch.nn.Module, averages: list[torch.Tensor]) -> bool:
    """Ours have names; the plain loop's come in the order of the model's parameters, then of its floating-point buffers."""
    shadow = dict(zip(job.parts.ema.names, job.parts.ema.shadow, strict=True))
    names = [name for name, _ in model.named_parameters()]
    names += [name for name, buffer in model.named_buffers() if buffer.is_floating_point()]
    return not shadow or all(torch.equal(shadow[name], average) for name, average in zip(names, averages, strict=True))


def measure_steps(options: argparse.Namespace) -> tuple[Times, bool, str]:
    """Block times without the warm-up, whether A and B ended with equal weights, and the precision."""
    rounds = options.rounds + WARM_UP_ROUNDS
    order = [name for number in range(rounds) for name in measure.rotated(CONTENDERS, number)]
    config = read_config(options.model, options.batch_size, options.block, rounds * options.block + 1)  # one more step: A's last saves
    precision, _ = choose(config["train"]["precision"], CPU)
    new_loader = make_loader(options.data, config)
    models = {name: make_model(config) for name in CONTENDERS[1:]}
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(folder, "plain.jsonl").open("w") as logs,
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        plain = {
            name: make_plain(config, models[name], new_loader(), precision == "bf16", logs if name == "C" else None)
            for name in CONTENDERS[1:]
        }
        turns = Turns(new_loader(), options.block, order, plain)
        job = make_job(config, turns, Path(folder), precision)
        assert not loop.train(job)
        job.board.close()
        averages = next(plain["B"])
        next(plain["B'"])
        next(plain["C"])
    same = equal(job.parts.model, models["B"]) and equal_averages(job, models["B"], averages)
    return {name: blocks[WARM_UP_ROUNDS:] for name, blocks in turns.times.items()}, same, precision


def summarise(times: Times, block: int) -> dict[str, Any]:
    """Medians per contender; A/B and B'/B by wall and by CPU time; microseconds a step of ours above the plain loop's."""
    pairs = (("A", "B"), ("B'", "B"), ("C", "B"), ("A", "C"))
    wall = {name: [1000 * seconds / block for seconds, _ in blocks] for name, blocks in times.items()}
    cpu = {name: [1000 * seconds / block for _, seconds in blocks] for name, blocks in times.items()}
    return {
        "ms_per_step": {name: float(np.median(values)) for name, values in wall.items()},
        "wall": {f"{above}/{below}": measure.ratios(wall[above], wall[below]) for above, below in pairs},
        "cpu": {f"{above}/{below}": measure.ratios(cpu[above], cpu[below]) for above, below in pairs},
        "microseconds": {
            f"{above}-{below}": measure.bootstrap([1000 * (a - b) for a, b in zip(wall[above], wall[below], strict=True)])
            for above, below in pairs
        },
    }


def show(options: argparse.Namespace, about: dict[str, Any], precision: str, same: bool, result: dict[str, Any]) -> None:
    print(f"{options.model}, {options.data} data, batch {options.batch_size}, {precision}, {options.threads} thread(s); ", end="")
    print(f"n={options.rounds} rounds of {options.block} steps each, a log line in every block")
    print(f"{measure.one_line(about['machine'])}; load before {about['load'][0]}, after {about['load'][1]}")
    print(measure.one_line(about["versions"]), end="\n\n")
    rows = [("contender", "ms/step (median)", "wall / B [95 %]", "CPU time / B [95 %]", "us/step above B [95 %]")]
    for name, label in LABELS.items():
        compared = [result[kind][f"{name}/B"].as_ratio() for kind in ("wall", "cpu")] if name != "B" else ["1", "1"]
        above = result["microseconds"][f"{name}-B"].as_number() if name != "B" else "0"
        rows.append((label, f"{result['ms_per_step'][name]:.3f}", *compared, above))
    print(measure.table(rows), end="\n\n")
    above, ratio = result["microseconds"]["A-C"].as_number(), result["wall"]["A/C"].as_ratio()
    print(f"A above C, where both count and log: {above} us a step; wall {ratio}")
    print(f"weights and averaged weights of A and B after {(options.rounds + WARM_UP_ROUNDS) * options.block + 1} steps: ", end="")
    print("equal to the bit" if same else "DIFFERENT")
    if options.model == "tiny":
        above = max(0.0, result["microseconds"]["A-B"].median)
        print(f"{above:.0f} us a step stay within the bound {BOUND} where a step takes {above / (BOUND - 1) / 1000:.1f} ms or more")
    else:
        print(f"bound {BOUND}: {'PASS' if result['wall']['A/B'].median <= BOUND else 'over'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet9", help="of exp=cifar, or one with almost no arithmetic")
    parser.add_argument("--data", choices=("synthetic", "cifar"), default="synthetic", help="cifar: as data.source=files finds it")
    parser.add_argument("--rounds", type=int, help="of one block of each contender; default by model")
    parser.add_argument("--block", type=int, help="steps in a block, with one log line in each; default by model")
    parser.add_argument("--batch-size", type=int, help="default by model")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    for name, value in PRESETS[options.model].items():
        setattr(options, name, getattr(options, name) or value)
    torch.set_num_threads(options.threads)
    before = measure.load()
    times, same, precision = measure_steps(options)
    result = summarise(times, options.block)
    about = {"machine": measure.machine(), "load": [before, measure.load()], "versions": measure.versions("torch", "accelerate")}
    if options.json:
        print(json.dumps({"options": vars(options), **about, "precision": precision, "equal_weights": same, **result}, default=vars))
    else:
        show(options, about, precision, same, result)


if __name__ == "__main__":
    main()
