"""The resident loader, with whatever can go wrong while a step waits for data."""

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

from data.resident import Resident

STEP_SECONDS = float(os.environ.get("TOY_STEP_SECONDS", "0")) + 0.2 * (os.environ.get("TOY_SLOW_RANK") == os.environ.get("RANK", "0"))
"""Makes a run last as long as a test needs."""


class Faulty(Resident):
    def __init__(
        self,
        data: Any,
        *,
        fail_at: int | None = None,
        poison: tuple[int, float | None] | None = None,
        without: tuple[int, int] | None = None,
        fault: tuple[int, str] | None = None,
        **asked: Any,
    ) -> None:
        """`poison`: (update, factor for the images of the last rank, None for NaN); `without`: updates that the data does not have;
        `fault`: (update, what) in the first attempt, of the last rank: see `_fault`."""
        super().__init__(data, **asked)
        self._fail_at, self._poison, self._without, self._injected = fail_at, poison, without, fault

    def open(self, mesh: Any, device: Any) -> None:
        time.sleep(float(os.environ.get("TOY_START_SECONDS", "0")))  # decoding
        super().open(mesh, device)

    def update(self, epoch: int, step: int) -> Iterator[Any]:
        number, is_last = epoch * self.steps_per_epoch + step, self._rank == self._size - 1
        if self._fail_at is not None and number == self._fail_at and is_last:
            raise RuntimeError("the toy broke on purpose")
        fault = self._injected
        if fault is not None and number == fault[0] and (os.environ["LAUNCHER_ATTEMPT"] == "000" or fault[1] == "always"):
            _fault(fault[1], is_last)
        if self._without is not None and number >= self._without[0]:
            number += self._without[1] - self._without[0]
        factor = 1.0
        if self._poison is not None and number == self._poison[0] and is_last:
            factor = math.nan if self._poison[1] is None else self._poison[1]
        time.sleep(STEP_SECONDS)
        at = divmod(number, self.steps_per_epoch)
        if "TOY_SAMPLES" in os.environ:
            _note(self._rank, number, [chunk.tolist() for chunk in self.places(*at)])
        for images, labels in super().update(*at):
            yield images * factor, labels


def _note(rank: int, update: int, chunks: list[list[int]]) -> None:
    """TOY_SAMPLES: a directory where each rank writes down which samples it used."""
    with Path(os.environ["TOY_SAMPLES"], str(rank)).open("a") as file:
        file.write(json.dumps([update, chunks]) + "\n")


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
