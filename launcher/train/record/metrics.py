"""metrics.jsonl, the truth of a run's numbers."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch

from launcher.errors import RunError
from launcher.rundir.rundir import read_jsonl, write_atomic
from launcher.train.device import peak_bytes
from launcher.trust import writing


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
    allocated = peak_bytes(device)
    if allocated is not None:
        return allocated
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
