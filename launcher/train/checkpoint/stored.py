"""What the files of a checkpoint say of a run without its model: where it is, and whether they are files that a run writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from launcher.errors import CheckpointError
from launcher.train.checkpoint.manifest import Checkpoint, by_step, describe
from launcher.train.checkpoint.slices import header
from launcher.trust import reading


@dataclass
class TrainState:
    """Where a run is. At a step boundary nothing else moves."""

    step: int = 0
    """Optimizer updates done."""
    samples: int = 0
    """Training samples consumed over the world; with the seed and the length of an epoch, the position in the data."""
    seconds: float = 0.0
    """Wall time of all attempts so far."""
    train_seconds: float = 0.0
    """Of these, in training steps."""
    data_seconds: float = 0.0
    """Of the time in steps, waiting for data."""
    evaluation_seconds: float = 0.0
    slowest_evaluation: float = 0.0
    """Seconds: a new attempt has to leave room for one before it has seen any."""
    save_seconds: float = 0.0
    """In which training stood still for a save."""
    passed_over: int = 0
    """Updates' worth of batches left out after numbers went bad: update n uses batches n + passed_over."""
    rollbacks: int = 0
    """In the whole run; what came after the last save is in the ledger."""
    skipped: int = 0
    """Updates left out, up to the last line of metrics."""
    best_step: int = 0
    """Whose evaluation was the best so far, by the run's objective; 0: none yet."""
    best_value: float = 0.0
    to_beat: float = 0.0
    """By train.early_stop.min_delta; the best may be better than that by less."""
    worse: int = 0
    """Evaluations that have not."""
    ended: str = ""
    """Why the run is over before its last step: early_stop, seconds (train/ends.py)."""
    precision: str = ""
    """The arithmetic of the run, which no attempt changes; empty in a checkpoint of an older format."""
    losses: list[float] = field(default_factory=list[float])
    """By which the next jump is judged."""
    layers: dict[str, Any] = field(default_factory=dict[str, Any])
    """What each layer's gradients were, and what was said of them."""


def stored_precision(folder: Path) -> str:
    """What the run whose checkpoints these are computes in; empty where none is there that says."""
    for _, path in by_step(folder):
        with contextlib.suppress(CheckpointError):  # damaged: the one before knows it too
            return state_of(record_in(describe(path), "state.json")).precision
    return ""


def examine(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    """Every byte of those of its files, and what can be said of them without a model. Raises CheckpointError: one that verifies may still
    be of somebody who meant harm."""
    if len(checkpoint.files) < 2 * checkpoint.world:
        raise CheckpointError(f"{checkpoint.path} has too few files for a world of {checkpoint.world}")
    if "state.json" not in checkpoint.files:
        raise CheckpointError(f"{checkpoint.path} has no state.json")
    for name in names:
        if name == "state.json":
            state_of(record_in(checkpoint, name))
        elif name.endswith(".json"):
            record_in(checkpoint, name)
        else:
            checkpoint.verify([name])
            if name.endswith(".safetensors"):
                with as_written(checkpoint):
                    header(checkpoint, name)


@contextlib.contextmanager
def as_written(checkpoint: Checkpoint) -> Iterator[None]:
    """Whatever fails in what a checkpoint holds is a CheckpointError; what fails in the device that it is read into is not."""
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{checkpoint.path} does not hold what a run writes ({type(error).__name__}: {error})") from error


def record_in(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    with as_written(checkpoint):
        return reading.record(checkpoint.read(name))


def state_of(shared: dict[str, Any]) -> TrainState:
    """Raises CheckpointError."""
    values = shared.get("state")
    known = {each.name: type(getattr(TrainState(), each.name)) for each in fields(TrainState)}
    if not isinstance(values, dict) or any(not _is(value, known.get(name)) for name, value in values.items()):
        raise CheckpointError("its state.json is not the state of a run")
    return TrainState(**values)


def _is(value: object, kind: type | None) -> bool:
    if kind is float:
        return reading.number(value) is not None
    return reading.whole_number(value) is not None if kind is int else kind is not None and isinstance(value, kind)


def foreign(checkpoint: Checkpoint) -> str:
    """What to warn of where another version of torch wrote a checkpoint; empty where it was this one."""
    version = str(record_in(checkpoint, "state.json").get("torch", "an older version"))
    if version == torch.__version__:
        return ""
    return f"{checkpoint.path.name} was written with torch {version}, this is {torch.__version__}: the last bits may differ from here on"
