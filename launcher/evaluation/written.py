"""What an evaluation leaves in the run: written aside, and put in the place of the one before when all of it is there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from launcher.errors import RunError
from launcher.evaluation.findings import Findings
from launcher.rundir import evaluated, lock
from launcher.rundir.rundir import RunDir
from launcher.trust import writing

VERSION = 1
REPORT, PREDICTIONS, PAGE = "evaluation.json", "predictions.parquet", "report.html"
BOARD = "tb"
"""While it is written; it ends below the run's own."""


class Aside:
    """A folder beside those of the splits, for as long as its files come."""

    def __init__(self, run: RunDir, split: str, name: str) -> None:
        """Raises RunError."""
        self._run, self._split = run, split
        folder = evaluated.folder(run)
        self.path, self._gone = evaluated.aside(run, split, name), folder / f"tmp.{split}.{name}.before"
        with _in_one_line(self.path):
            for left in folder.glob(f"tmp.{split}.*"):
                if not lock.is_held(folder / "jobs" / left.name.split(".")[2] / ".lock"):  # of one that was killed
                    shutil.rmtree(left, ignore_errors=True)
            self.path.mkdir()

    def write(self, name: str, data: bytes) -> None:
        """Raises RunError."""
        with _in_one_line(self.path), os.fdopen(writing.new(self.path / name), "wb") as file:
            file.write(data)
            file.flush()
            writing.sync(file.fileno())

    def put(self) -> Path:
        """In the place of the one before. Raises RunError."""
        board, place = self.path / BOARD, evaluated.folder(self._run) / self._split
        with _in_one_line(place):
            if board.is_dir():
                _replace(board, self._run.tensorboard / "evaluation" / self._split)
            if place.exists():
                place.rename(self._gone)
            self.path.rename(place)
        shutil.rmtree(self._gone, ignore_errors=True)
        return place

    def drop(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def _in_one_line(place: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise RunError(f"{place} cannot be written ({error.strerror or error}); make room, and evaluate again") from error


def _replace(new: Path, old: Path) -> None:
    """A chart shows no step of two evaluations."""
    old.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)


def report(known: Mapping[str, Any], findings: Findings) -> bytes:
    """evaluation.json. `known`: of the run, the checkpoint and the data."""
    metrics = {name: metric._asdict() for name, metric in findings.metrics.items()}
    bootstrap = {"resamples": findings.resamples, "seed": 0, "percent": 95} if findings.resamples else None
    whole = {"format": "launcher-evaluation", "version": VERSION, **known, "bootstrap": bootstrap, "metrics": metrics, **findings.details}
    return (json.dumps(_plain(whole), indent=1, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """What JSON has: null for what is no number."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def predictions(columns: Mapping[str, Any], known: Mapping[str, str]) -> bytes:
    """predictions.parquet: `sample`, its place in the split, and what was found of each; `known` is the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(next(iter(columns.values())))
    arrays = {"sample": pa.array(np.arange(count, dtype=np.int64))}
    for name, values in columns.items():
        if values.ndim == 1:
            arrays[name] = pa.array(values)
        else:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * values.shape[1])
            arrays[name] = pa.ListArray.from_arrays(offsets, flat)
    table = pa.table(arrays).replace_schema_metadata(dict(known))
    into = pa.BufferOutputStream()
    pq.write_table(table, into)
    return into.getvalue().to_pybytes()
