"""What draws at random in every way there is, and can go wrong in a worker process."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Noisy:
    def __init__(self, samples: int = 40, *, fault: str = "", at: int = -1, once: Path | None = None, seconds: float = 0) -> None:
        """`fault`: what happens at sample `at` (see below); once only where `once` is a path, which then is there. `seconds`: of sleep for
        each sample."""
        self.samples, self.fault, self.at, self.once, self.seconds = samples, fault, at, once, seconds

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(self.seconds)
        if index == self.at and self._is_due():
            self._go_wrong()
        shape = (2, index) if self.fault == "shapes" else (2, 2)
        return {"index": index, "drawn": (random.random(), np.random.rand(3), torch.rand(shape)), "pid": os.getpid()}

    def _is_due(self) -> bool:
        if self.once is None:
            return True
        try:
            self.once.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _go_wrong(self) -> None:
        if self.fault == "raise":
            raise ZeroDivisionError("on purpose")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "parent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        if self.fault == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.fault == "sleep":
            time.sleep(60)
        if self.fault == "exit":
            os._exit(3)
        if self.fault == "leave":
            sys.exit(3)


class Collated(Noisy):
    """Makes its batches itself, of samples of several shapes."""

    def __init__(self, samples: int = 40) -> None:
        super().__init__(samples, fault="shapes")

    def collate(self, samples: list[dict[str, Any]]) -> Bag:
        return Bag([sample["index"] for sample in samples], [sample["drawn"][2] for sample in samples], torch.rand(2))


class Bag:
    """A class that nothing but its author knows."""

    def __init__(self, names: list[int], parts: list[torch.Tensor], mixed: torch.Tensor) -> None:
        self.names, self.parts, self.mixed = names, parts, mixed


class Growing(Noisy):
    """Grows with each epoch's first look."""

    def __len__(self) -> int:
        self.samples += 1
        return self.samples


class Elsewhere(Noisy):
    """Cannot be made anew in another process."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise OSError("nobody here knows my files")
