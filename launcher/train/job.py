"""Everything a process trains with, in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from launcher.config.config import TrainConfig
from launcher.plan import Coordinate
from launcher.rundir.rundir import RunDir
from launcher.train.checkpoint.checkpoint import CheckpointStore
from launcher.train.checkpoint.saver import Saver
from launcher.train.checkpoint.state import Parts
from launcher.train.checkpoint.stored import TrainState
from launcher.train.ends import Ends
from launcher.train.guard.guard import Guard
from launcher.train.guard.replicas import Replicas
from launcher.train.record.board import Board, NoBoard
from launcher.train.record.metrics import MetricsFile
from launcher.train.record.throughput import Throughput
from launcher.train.step import Stepper
from launcher.train.stop import Stopper
from launcher.train.tasks.task import Model, Task
from launcher.train.watch import NoWatch, Watch
from launcher.train.world.agreement import Agreement
from launcher.train.world.ranks import Ranks


@dataclass
class Job:
    """Made by launcher/train/build.py, restored by work.py, driven by loop.py."""

    run: RunDir
    config: TrainConfig
    steps: int
    """Optimizer updates in the whole run."""
    state: TrainState
    parts: Parts
    """What a checkpoint holds."""

    stepper: Stepper
    schedule: Callable[[int, int], float]
    task: Task
    evaluated: Model
    """What the task calls in evaluation."""
    loader: Any
    """data/loader.py."""
    evaluates_at: Callable[[int], bool]
    """By the number of updates done."""
    ends: Ends

    coordinate: Coordinate
    ranks: Ranks
    """All processes."""
    peers: Ranks
    """Those with the same part of the model and another share of the data."""
    counting: int
    """How many of all ranks have numbers of their own in the totals."""
    agreement: Agreement
    watch: Watch | NoWatch
    stopper: Stopper

    store: CheckpointStore
    saver: Saver

    guard: Guard
    replicas: Replicas

    metrics: MetricsFile
    board: Board | NoBoard = field(default_factory=NoBoard)
    """Rank 0 opens one when it knows at which step it begins."""
    throughput: Throughput = field(default_factory=Throughput)
    class_names: Sequence[str] = ()
    is_standin: bool = False
    """Whether the data are drawn, and not those that were asked for."""
    where: dict[str, Any] = field(default_factory=dict[str, Any])
    """Where this process is, for the report of an error."""
