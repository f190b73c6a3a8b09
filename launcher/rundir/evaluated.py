"""Evaluations of a run: where they lie, and what one was asked for. Known to who starts one and to the processes that make it.

RUN/evaluation/<split>/          the newest of that split: evaluation.json, report.html, predictions.parquet, *.png; complete or absent
RUN/evaluation/jobs/<id>/        a run directory for the processes that make one: plan, script, logs; asked.json, what was asked for
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from launcher.errors import RunError
from launcher.rundir.rundir import RunDir, read_text, write_atomic
from launcher.trust import reading

SPLITS = ("train", "val", "test")
ANY = "auto"
"""test, or val where the data have no such part."""
NEWEST, BEST = "newest", "best"
"""Checkpoints, beside the number of a step."""


class Asked(NamedTuple):
    run: str
    """Its directory."""
    split: str = ANY
    checkpoint: str = NEWEST
    robustness: bool = False


def folder(run: RunDir) -> Path:
    return run.path / "evaluation"


def aside(run: RunDir, split: str, name: str) -> Path:
    """Where the evaluation of that name writes until all is there."""
    return folder(run) / f"tmp.{split}.{name}"


def clear(run: RunDir, name: str) -> None:
    """Take away what the evaluation of that name has begun, whose processes are gone."""
    for left in folder(run).glob(f"tmp.*.{name}"):
        shutil.rmtree(left, ignore_errors=True)


def write(job: RunDir, asked: Asked) -> None:
    """Raises RunError."""
    write_atomic(_file(job), json.dumps(asked._asdict()) + "\n")


def read(job: RunDir) -> Asked:
    """Raises RunError."""
    try:
        told = reading.record(read_text(_file(job)))
        asked = Asked(**told)
    except (ValueError, TypeError) as error:
        raise RunError(f"{_file(job)} does not say what is to be evaluated ({error}); type the command again") from error
    if asked.split not in (ANY, *SPLITS):
        raise RunError(f"{_file(job)}: split={asked.split!r:.40} is none; type the command again")
    return asked


def _file(job: RunDir) -> Path:
    return job.path / "asked.json"
