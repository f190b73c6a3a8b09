"""Stopping: signals and the STOP file set a flag; a step boundary acts on it, on all ranks at the same step."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from launcher.train.ranks import Ranks

LOOK_EVERY_SECONDS = 0.5
"""Between two looks for the STOP file: on a network file system one look can cost a millisecond."""


class Stopper:
    """Whether to stop here. TERM, INT and USR2 to a worker mean the same as the STOP file."""

    def __init__(self, file: Path, ranks: Ranks) -> None:
        self._file = file
        self._ranks = ranks
        self._asked = False
        self._next_look = 0.0
        self._pending: tuple[Any, torch.Tensor] | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _look(self) -> bool:
        now = time.monotonic()
        if not self._asked and self._ranks.is_first and now >= self._next_look:
            self._next_look = now + LOOK_EVERY_SECONDS
            self._asked = self._file.exists()
        return self._asked

    def agreed(self) -> bool:
        """Call once per step on every rank: true on all of them at the same step.

        The answer of one step is collected at the next, so that no step waits for it.
        """
        if self._ranks.world == 1:
            return self._look()
        stop = self.settle()
        flag = torch.tensor([int(self._look())], dtype=torch.int32)
        self._pending = (self._ranks.begin_max(flag), flag)
        return stop

    def settle(self) -> bool:
        """Wait for the message under way: once more at the end, so that none is left when the group is torn down."""
        if self._pending is None:
            return False
        work, flag = self._pending
        work.wait()
        self._pending = None
        return bool(flag.item())
