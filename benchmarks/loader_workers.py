"""Samples per second of loader=workers beside torch's DataLoader as somebody who knows it would set it up, on the same data set.

    python benchmarks/loader_workers.py                   # 2 minutes; --size 224 --kind png: larger pictures

Contenders take turns, in blocks of some batches and in an order that rotates: A, `data.workers.Workers`; B, a DataLoader with persistent
workers, the same number of them and of batches made ahead, one thread each, which plants each sample's generators from (seed, index) as
cheaply as can be; B', the same again. Each has its own processes, and only those of the block's contender have anything to do: before a
block all of them have made what they make ahead. Epochs have no ends, which A has anyway and a DataLoader has not: at each it waits until
its workers have begun again. B'/B is what the measurement itself cannot tell apart.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
import torch
from torch.utils.data import DataLoader, RandomSampler

from benchmarks import measure
from benchmarks.pictures import Pictures, Planted, draw
from data.workers import Workers

WARM_UP_ROUNDS = 2
CONTENDERS = ("A", "B", "B'")
LABELS = {"A": "A   loader=workers", "B": "B   DataLoader", "B'": "B'  DataLoader again"}
BOUND = 0.95


def ours(data: Pictures, options: argparse.Namespace) -> Iterator[Any]:
    loader = Workers(
        data, batch_size=options.batch_size, accumulate=1, seed=0, val=0, test=0, num_workers=options.workers, prefetch_factor=2
    )
    loader.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    with contextlib.closing(loader):
        epoch = 0
        while True:
            yield from loader.steps(epoch)
            epoch += 1


def theirs(data: Pictures, options: argparse.Namespace) -> Iterator[Any]:
    """Without end, so that nothing is paid for the ends of epochs."""
    yield from DataLoader(
        Planted(data),
        options.batch_size,
        sampler=RandomSampler(data, num_samples=10**7),
        num_workers=options.workers,
        persistent_workers=True,
        prefetch_factor=2,
        worker_init_fn=lambda number: torch.set_num_threads(1),
    )


def measured(
    contenders: dict[str, Iterator[Any]], workers: dict[str, list[psutil.Process]], options: argparse.Namespace
) -> dict[str, list[tuple[float, float]]]:
    """Seconds, and seconds of processors, of each block."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for number in range(options.rounds + WARM_UP_ROUNDS):
        for name in measure.rotated(CONTENDERS, number):
            for _ in range(2 * options.workers):  # those that were made while others were measured
                next(contenders[name])
            begin, spent = time.perf_counter(), cpu_seconds(workers[name])
            for _ in range(options.block):
                images, _ = next(contenders[name])
                images.sum()  # a batch that nobody looks at costs less than it does
            found[name].append((time.perf_counter() - begin, cpu_seconds(workers[name]) - spent))
            time.sleep(options.settle)
    return {name: blocks[WARM_UP_ROUNDS:] for name, blocks in found.items()}


def started(contender: Iterator[Any]) -> list[psutil.Process]:
    """The processes that are there once it has made a batch, and were not before."""
    before = psutil.Process().children(recursive=True)
    next(contender)
    return [each for each in psutil.Process().children(recursive=True) if each not in before]


def cpu_seconds(workers: list[psutil.Process]) -> float:
    """Of these and of this process."""
    return sum(times.user + times.system for times in (each.cpu_times() for each in [psutil.Process(), *workers]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--kind", choices=("jpeg", "png"), default="jpeg")
    parser.add_argument("--count", type=int, default=640, help="pictures")
    parser.add_argument("--size", type=int, default=128, help="pixels of a side; seven eighths of it are cut out")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30, help="of one block of each contender")
    parser.add_argument("--block", type=int, default=40, help="batches in a block")
    parser.add_argument("--settle", type=float, default=0.3, help="seconds behind a block, for what is made ahead")
    options = parser.parse_args()
    before = measure.load()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), options.kind, options.count, options.size)
        data = Pictures(folder, options.size * 7 // 8)
        contenders = {name: (ours if name == "A" else theirs)(data, options) for name in CONTENDERS}
        found = measured(contenders, {name: started(each) for name, each in contenders.items()}, options)
        contenders["A"].close()
    samples = options.block * options.batch_size
    pictures = f"{options.count} {options.kind} of {options.size} x {options.size}"
    print(f"{pictures}, batches of {options.batch_size}, {options.workers} workers each")
    print(f"n={options.rounds} rounds of {options.block} batches each")
    print(f"{measure.one_line(measure.machine())}; load before {before}, after {measure.load()}")
    print(measure.one_line(measure.versions("torch", "pillow")), end="\n\n")
    wall, cpu = ({name: [block[which] for block in found[name]] for name in CONTENDERS} for which in (0, 1))
    rows = [("contender", "samples/s (median)", "samples/s over B [95 %]", "CPU ms/batch", "CPU time / B [95 %]")]
    for name, label in LABELS.items():
        speed = measure.ratios(wall["B"], wall[name]).as_ratio() if name != "B" else "1"
        cost = measure.ratios(cpu[name], cpu["B"]).as_ratio() if name != "B" else "1"
        medians = samples / statistics.median(wall[name]), 1000 * statistics.median(cpu[name]) / options.block
        rows.append((label, f"{medians[0]:.0f}", speed, f"{medians[1]:.2f}", cost))
    print(measure.table(rows), end="\n\n")
    result = measure.ratios(wall["B"], wall["A"]).median
    print(f"bound {BOUND}: {'PASS' if result >= BOUND else 'below'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
