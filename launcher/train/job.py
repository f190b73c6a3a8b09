"""Everything a process trains with, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from launcher.config.config import TrainConfig
from launcher.rundir.rundir import RunDir
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.saver import Saver
from launcher.train.checkpoint.state import Parts
from launcher.train.checkpoint.stored import TrainState
from launcher.train.ema import Ema, NoEma
from launcher.train.guard.guard import Guard
from launcher.train.guard.layers import Layers
from launcher.train.guard.replicas import Replicas
from launcher.train.record.board import Board, NoBoard
from launcher.train.record.metrics import MetricsFile
from launcher.train.step import Stepper
from launcher.train.stop import Stopper
from launcher.train.watch import NoWatch, Watch
from launcher.train.world.agreement import Agreement
from launcher.train.world.ranks import Ranks


@dataclass
class Job:
    """Built and restored by launcher/train/work.py, driven by loop.py."""

    run: RunDir
    config: TrainConfig
    steps: int
    """Optimizer updates in the whole run."""
    state: TrainState
    parts: Parts
    ema: Ema | NoEma
    inner: nn.Module
    stepper: Stepper
    schedule: Any
    task: Any
    data: Any
    loader: Any
    ranks: Ranks
    store: CheckpointStore
    saver: Saver
    stopper: Stopper
    guard: Guard
    replicas: Replicas
    layers: Layers
    watch: Watch | NoWatch
    agreement: Agreement
    metrics: MetricsFile
    board: Board | NoBoard
    where: dict[str, Any]
    """Where this process is, for the report of an error."""
