"""Numbers from the device to metrics.jsonl: summed where they arise, fetched every `log_every` steps without waiting."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from launcher.errors import RunError
from launcher.rundir.rundir import read_jsonl, write_atomic
from launcher.trust import writing


class Meter:
    """Running sums of a task on the device. Part of the state: a run that resumes within an interval logs the same line.

    Scalars apart, added to in place: stacking three new ones and adding the stack cost twice as much per step.
    """

    def __init__(self, sums: int, device: torch.device) -> None:
        self.sums = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(sums)]
        self.samples = 0
        """Of this rank; the host knows them without asking the device."""
        self.steps = 0

    def take(self) -> tuple[Fetch, int]:
        """Start the copy of the sums to the host, and count from zero again. Returns it and this rank's samples."""
        fetch, samples = Fetch(torch.stack(self.sums)), self.samples
        for value in self.sums:
            value.zero_()
        self.samples = self.steps = 0
        return fetch, samples

    def state(self) -> Totals:
        return Totals({"meter": torch.stack(self.sums)}, {"samples": self.samples, "steps": self.steps})

    def load(self, tensors: Mapping[str, torch.Tensor], counts: Mapping[str, int]) -> None:
        for value, saved in zip(self.sums, tensors["meter"], strict=True):
            value.copy_(saved)
        self.samples, self.steps = counts["samples"], counts["steps"]


class Totals(NamedTuple):
    """What a checkpoint keeps of a meter; the sums stay on the device, for reading them would wait for it."""

    tensors: dict[str, torch.Tensor]
    counts: dict[str, int]


class Fetch:
    """A copy from the device under way; `value()` waits for it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event(blocking=True)
            self._event.record()
        else:
            self._host = tensor

    def value(self) -> torch.Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._host


class MetricsFile:
    """metrics.jsonl: one JSON object a line, floats that round-trip exactly, each step once. Rank 0 writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def rewind(self, step: int) -> int:
        """Forget what came after `step`, a torn last line, and the final test. Returns how many steps will be done again."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # of the file that is about to be replaced
            self._descriptor = None
        if not self.path.exists():
            return 0
        lines = list(read_jsonl(self.path))
        kept = [line for line in lines if line["step"] <= step and line["split"] != "test"]
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        return max(0, max((line["step"] for line in lines), default=0) - step)

    def write(self, step: int, split: str, **values: Any) -> None:
        """Raises RunError where the disk takes no more: these numbers are the run's result."""
        known = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()}
        line = json.dumps({"step": step, "split": split, **known}) + "\n"  # NaN is no JSON
        try:
            if self._descriptor is None:
                self._descriptor = writing.to_append(self.path)
            os.write(self._descriptor, line.encode())
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror}); make room and resume the run") from error

    def sync(self) -> None:
        """Before a checkpoint says that the steps up to its own are done, their lines are on the disk. Raises OSError."""
        if self._descriptor is not None:
            writing.sync(self._descriptor)  # the checkpoint says where that is nothing


def last(path: Path, split: str) -> dict[str, Any]:
    """The newest numbers of one split, whichever attempt wrote them. Empty where there are none."""
    lines = [line for line in read_jsonl(path) if line.get("split") == split]
    known = lines[-1].items() if lines else ()
    return {name: value for name, value in known if name not in ("step", "split", "samples") and value is not None}


def memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: allocated on the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
