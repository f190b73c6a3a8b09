"""640 small images of four classes, made from a seed: a data set that needs no file and trains in seconds."""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

STEP_SECONDS = float(os.environ.get("TOY_STEP_SECONDS", "0")) + 0.2 * (os.environ.get("TOY_SLOW_RANK") == os.environ.get("RANK", "0"))
"""Makes a run last as long as a test needs."""


class Blobs:
    num_classes = 4
    class_names = ("north", "east", "south", "west")

    def __init__(
        self,
        samples: int = 640,
        noise: float = 0.6,
        fail_at: int | None = None,
        poison: tuple[int, float | None] | None = None,
        without: tuple[int, int] | None = None,
        fault: tuple[int, str] | None = None,
    ) -> None:
        """`poison`: (update, factor for the images of the last rank, None for NaN); `without`: updates that the data does not have;
        `fault`: (update, what) in the first attempt, of the last rank: see `_fault`."""
        self.changes = poison, without, fault
        self.samples = samples
        self.noise = noise
        self.fail_at = fail_at

    def _split(self, name: str) -> tuple[Any, Any]:
        import torch

        count = self.samples if name == "train" else 101  # odd on purpose: no world divides it
        generator = np.random.Generator(np.random.PCG64([7, len(name)]))
        labels = generator.integers(0, 4, count)
        images = generator.normal(0, self.noise, (count, 3, 8, 8))
        for index, label in enumerate(labels):
            rows, columns = ((0, 4), (2, 6)), ((2, 6), (4, 8))
            top, left = rows[label % 2][0], columns[label // 2][0]
            images[index, label % 3, top : top + 3, left : left + 3] += 1
        return torch.from_numpy(images).float(), torch.from_numpy(labels)

    def train_loader(self, *, batch_size: int, accumulate: int, rank: int, world: int, seed: int, device: Any) -> Any:
        time.sleep(float(os.environ.get("TOY_START_SECONDS", "0")))  # decoding
        images, labels = self._split("train")
        return _Train(images.to(device), labels.to(device), batch_size, accumulate, rank, world, seed, self.fail_at, *self.changes)

    def eval_loader(self, split: str, *, rank: int, world: int, device: Any, batch_size: int = 50) -> Any:
        images, labels = self._split(split)
        return _Eval(images.to(device), labels.to(device), rank, world, batch_size)


class _Train:
    def __init__(self, images: Any, labels: Any, batch: int, accumulate: int, rank: int, world: int, seed: int, *faults: Any) -> None:
        self.samples = len(labels)
        self.steps_per_epoch = len(labels) // batch
        self._state = (images, labels, batch, accumulate, rank, world, seed, *faults)

    def steps(self, epoch: int, start: int) -> Iterator[list[Any]]:
        images, labels, batch, accumulate, rank, world, seed, fail_at, poison, without, fault = self._state
        micro = batch // (world * accumulate)
        for step in range(start, self.steps_per_epoch):
            update = epoch * self.steps_per_epoch + step
            if fail_at is not None and update == fail_at and rank == world - 1:
                raise RuntimeError("the toy broke on purpose")
            if fault is not None and update == fault[0] and (os.environ["LAUNCHER_ATTEMPT"] == "000" or fault[1] == "always"):
                _fault(fault[1], last=rank == world - 1)
            if without is not None and update >= without[0]:
                update += without[1] - without[0]
            order = np.random.Generator(np.random.PCG64([seed, update // self.steps_per_epoch])).permutation(self.samples)
            begin = update % self.steps_per_epoch * batch
            whole = order[begin : begin + batch]
            factor = 1.0
            if poison is not None and update == poison[0] and rank == world - 1:
                factor = math.nan if poison[1] is None else poison[1]
            chunks = [whole[(part * world + rank) * micro :][:micro] for part in range(accumulate)]
            _note(rank, update, chunks)
            time.sleep(STEP_SECONDS)
            yield [(images[chunk] * factor, labels[chunk]) for chunk in chunks]


def _note(rank: int, update: int, chunks: list[Any]) -> None:
    """TOY_SAMPLES: a directory where each rank writes down which samples it used."""
    if "TOY_SAMPLES" in os.environ:
        with Path(os.environ["TOY_SAMPLES"], str(rank)).open("a") as file:
            file.write(json.dumps([update, [chunk.tolist() for chunk in chunks]]) + "\n")


def _fault(what: str, last: bool) -> None:
    """loop, sleep, lock (a sleep that holds the interpreter's lock), always (a loop in every attempt); skip (a barrier that the others come
    to); segfault, abort; memory (more than there is)."""
    if what == "skip" and not last:
        import torch.distributed as dist

        dist.barrier()
    if not last:
        return
    while what in ("loop", "always"):
        pass
    while what == "sleep":
        time.sleep(1)
    while what == "lock":
        ctypes.PyDLL(None).sleep(1)
    if what == "segfault":
        ctypes.string_at(0)
    if what == "abort":
        os.abort()
    if what == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
        bytearray(2**35)


class _Eval:
    def __init__(self, images: Any, labels: Any, rank: int, world: int, batch: int) -> None:
        self.samples = len(labels)
        self._batches = [(images[rank::world][i : i + batch], labels[rank::world][i : i + batch]) for i in range(0, len(labels), batch)]

    def __iter__(self) -> Iterator[Any]:
        return iter([batch for batch in self._batches if len(batch[1])])
