"""RUN/evaluation/<split>/predictions.parquet, as `evaluate` writes it: what a model came to on each sample. It may be a stranger's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.rundir.rundir import RunDir
from launcher.trust import reading

_NAME = "predictions.parquet"
_MOST_SAMPLES = 20_000_000
_MOST_BYTES = 4 << 30
_MOST_SPLITS = 16
_WHOLE, _REAL = ("int64",), ("float", "double")
_COLUMNS = {"sample": _WHOLE, "label": _WHOLE, "predicted": _WHOLE, "loss": _REAL}
"""And what they are. Columns of a fixed width alone are read: rows times eight bytes is what they can come to."""


@dataclass(frozen=True)
class Predictions:
    """In the order of `sample`."""

    sample: Any
    loss: Any
    """Float64."""
    label: Any
    """None where there are no classes."""
    right: Any
    fingerprint: str
    """Of what the model was given, and of what was to be found; empty where the file does not say."""


def splits(run: RunDir) -> list[str]:
    """That predictions are there of."""
    return sorted(path.parent.name for path in (run.path / "evaluation").glob(f"*/{_NAME}"))[:_MOST_SPLITS]


def read(run: RunDir, split: str) -> Predictions:
    """Raises ValueError that says what is wrong with the file."""
    path = run.path / "evaluation" / split / _NAME
    try:
        found, words = _columns(path)
    except OSError as error:
        raise ValueError(f"{_NAME} is not readable ({' '.join(str(error.strerror or error).split())[:120]})") from error
    return _ordered(found, words)


def _columns(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Raises OSError or ValueError."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    library: Any = pq
    with reading.opened(path) as file:
        try:
            table: Any = library.ParquetFile(file)
            told: Any = table.metadata
            columns = {field.name: str(field.type) for field in table.schema_arrow}
            size = sum(told.row_group(group).total_byte_size for group in range(told.num_row_groups))
            if told.num_rows > _MOST_SAMPLES or max(size, file.seek(0, 2)) > _MOST_BYTES:
                raise ValueError(f"{_NAME} is larger than predictions are")
            wanted = [name for name in _COLUMNS if name in columns]
            for name in wanted:
                if columns[name] not in _COLUMNS[name]:
                    raise ValueError(f"{_NAME}: {name} is {columns[name]}, not {_COLUMNS[name][0]}")
            if not {"sample", "loss"} <= {*wanted}:
                raise ValueError(f"{_NAME} has no column {'loss' if 'sample' in wanted else 'sample'}")
            read: Any = table.read(columns=wanted, use_threads=False)
            found = {name: read.column(name).to_numpy(zero_copy_only=False) for name in wanted}
            words = {_text(key): _text(value) for key, value in (table.schema_arrow.metadata or {}).items()}
        except ArrowException as error:
            raise ValueError(f"{_NAME} is not readable as parquet ({' '.join(str(error).split())[:120]})") from error
    return found, words


def _text(value: bytes) -> str:
    return value[:500].decode("utf-8", "replace")


def _ordered(found: dict[str, Any], words: dict[str, str]) -> Predictions:
    import numpy as np

    if not len(found["sample"]):
        raise ValueError(f"{_NAME} is empty")
    if any(found[name].dtype != np.int64 for name in found if name != "loss"):
        raise ValueError(f"{_NAME} has samples without a number")  # a null, which makes floats of whole numbers
    order = np.argsort(found["sample"], kind="stable")
    sample = found["sample"][order]
    if (sample[1:] == sample[:-1]).any():
        raise ValueError(f"{_NAME} has a sample twice")
    label = right = None
    if "label" in found and "predicted" in found:
        label = found["label"][order]
        right = label == found["predicted"][order]
    return Predictions(sample, found["loss"][order].astype(np.float64), label, right, words.get("fingerprint", ""))
