"""Rows of a table, and arrays, as a program takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from launcher.predict.images import Refused

SUFFIXES = (".csv", ".parquet", ".npy", ".npz")
_MOST_AT_ONCE = 4096


class Rows:
    """`table`: named columns. `array`: numbers in their order; `tensors`: what the model takes, as it is."""

    def __init__(self, told: Mapping[str, Any], shape: Sequence[Any]) -> None:
        """`shape`: of the program's input, its first dimension that of samples."""
        self._kind, self._shape = str(told["kind"]), tuple(shape[1:])
        self._columns: Sequence[Mapping[str, Any]] = told.get("columns", ())
        self._numbers: Mapping[str, Any] = {key: told.get(key) for key in ("mean", "std", "fill")}

    def of(self, path: Path) -> Iterator[Any]:
        """Each row of a file. Raises Refused."""
        if path.suffix.lower() in (".npy", ".npz"):
            yield from self._array(path)
            return
        for row in _table(path):
            names = [each["column"] for each in self._columns] if self._kind == "table" else [*row]
            yield row if self._kind == "table" else [row[name] for name in names]

    def __call__(self, row: Any) -> torch.Tensor:
        """Raises Refused."""
        if self._kind == "table":
            values = [_number(row, each) for each in self._columns]
            return torch.tensor([(value - each["mean"]) / each["std"] for value, each in zip(values, self._columns, strict=True)])
        try:
            tensor = torch.as_tensor(row, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise Refused("it is not all numbers") from error
        if tuple(tensor.shape) != self._shape:
            raise Refused(f"it is {tuple(tensor.shape)}, and the model takes {self._shape}")
        if self._numbers["fill"] is not None:
            tensor = torch.where(tensor.isnan(), self._along(self._numbers["fill"]), tensor)
        if not tensor.isfinite().all():
            raise Refused("it has values that are no finite numbers")
        if self._numbers["mean"] is not None:
            tensor = (tensor - self._along(self._numbers["mean"])) / self._along(self._numbers["std"])
        return tensor

    def _along(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).view(-1, *[1] * (len(self._shape) - 1))

    def _array(self, path: Path) -> Iterator[Any]:
        import numpy as np

        try:
            with path.open("rb") as file:
                found = np.load(file, allow_pickle=False)
                array = found[next(iter(found))] if path.suffix.lower() == ".npz" else found
            if array.shape[1:] != self._shape and array.shape == self._shape:
                array = array[None]
        except (OSError, ValueError, EOFError, KeyError, StopIteration) as error:
            raise Refused(
                f"it is no array that can be read ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})"
            ) from error
        if self._kind == "table":
            names = [each["column"] for each in self._columns]
            yield from (dict(zip(names, each, strict=False)) for each in array.tolist())
        else:
            yield from array


def _number(row: Mapping[str, Any], column: Mapping[str, Any]) -> float:
    name = column["column"]
    if name not in row:
        raise Refused(f"it has no column {name!r:.60}")
    value: Any = row[name]
    is_missing = value is None or value == "" or (isinstance(value, float) and not math.isfinite(value))
    if column["equals"] is not None and not is_missing:
        return float(str(value) == column["equals"])
    if is_missing:
        if column["fill"] is None:
            raise Refused(f"it has no value in column {name!r:.60}")
        return column["fill"]
    try:
        number = float(str(value))
    except (TypeError, ValueError) as error:
        raise Refused(f"column {name!r:.60} has {value!r:.40}, which is no number") from error
    if not math.isfinite(number):
        raise Refused(f"column {name!r:.60} has {value!r:.40}, which is no finite number")
    return number


def _table(path: Path) -> Iterator[dict[str, Any]]:
    """Raises Refused."""
    import csv

    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow import ArrowException, parquet

            try:
                for batch in parquet.ParquetFile(path).iter_batches(_MOST_AT_ONCE):
                    yield from batch.to_pylist()
            except ArrowException as error:
                raise Refused(f"it is no table that can be read ({str(error).splitlines()[0][:120]})") from error
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Refused(f"it is no table that can be read ({str(error)[:120]})") from error
