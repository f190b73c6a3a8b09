"""Rows of a table, and arrays, as a program takes them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from launcher.predict.images import Refused
from launcher.trust import reading

_MOST_AT_ONCE = 4096


class Rows:
    """`table`: named columns. `array`: numbers in their order; `tensors`: what the model takes, as it is."""

    def __init__(self, told: Mapping[str, Any], shape: Sequence[Any]) -> None:
        """`shape`: of the program's input, its first dimension that of samples."""
        self._kind, self._shape = str(told["kind"]), tuple(shape[1:])
        self._columns: Sequence[Mapping[str, Any]] = told.get("columns", ())
        self._names = list(dict.fromkeys(each["column"] for each in self._columns))
        """Of a file's columns: of one with text the model has several."""
        self._numbers: Mapping[str, Any] = {key: told.get(key) for key in ("mean", "std", "fill")}

    def of(self, path: Path) -> Generator[Any]:
        """Each row of a file. Raises Refused."""
        if path.suffix.lower() in (".npy", ".npz"):
            yield from self._array(path)
            return
        is_table = self._kind == "table"
        for row in _table(path, self._names if is_table else None):
            yield row if is_table else _in_order(row)

    def __call__(self, row: Any) -> torch.Tensor:
        """Raises Refused."""
        if self._kind == "table":
            if not isinstance(row, Mapping):
                raise Refused("it is no row with values by the names of columns")
            if None in row:
                raise Refused(f"it has {len(row[None])} values more than its first line has names")
            values = [_number(row, each) for each in self._columns]
            return torch.tensor([(value - each["mean"]) / each["std"] for value, each in zip(values, self._columns, strict=True)])
        try:
            tensor = torch.as_tensor(row, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
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
        array = _loaded(path)
        shape = (len(self._names),) if self._kind == "table" else self._shape
        if array.shape[1:] != shape and array.shape == shape:
            array = array[None]
        if array.ndim == 0 or (self._kind == "table" and array.shape[1:] != shape):
            raise Refused(f"it is {array.shape}, and a row of the model's is {shape}")
        if array.dtype.kind not in ("biufU" if self._kind == "table" else "biuf"):
            raise Refused(f"its values are {array.dtype}, and no real numbers")
        if self._kind != "table":
            yield from (each.astype("float64") for each in array)  # of any length and order of bytes, which torch has not
            return
        if array.dtype.kind != "U" and (texts := [each["column"] for each in self._columns if each["equals"] is not None]):
            raise Refused(f"column {texts[0]!r:.60} is a text, which no array of numbers has; write a .csv or .parquet")
        yield from (dict(zip(self._names, each.tolist(), strict=True)) for each in array)


def _loaded(path: Path) -> Any:
    """Raises Refused."""
    import numpy as np

    try:
        with reading.opened(path) as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            if len(found.files) == 1:
                return found[found.files[0]]
            names = ", ".join(found.files[:5])
    except Exception as error:  # numpy raises as many kinds as a file has ways to be none
        raise Refused(f"it is no array that can be read ({_first_line(error)})") from error
    raise Refused(f"it has {len(found.files)} arrays ({names:.60}), and one is the inputs; save that one alone")


def _in_order(row: Mapping[Any, Any]) -> list[Any]:
    """Numbers of a row, those beyond the first line's names too; what is none stays as it is, to be refused."""
    return [_plain(each) for name, value in row.items() for each in (value if name is None else [value])]


def _plain(value: Any) -> Any:
    if value is None or value == "":
        return math.nan
    try:
        return _float(value)
    except ValueError:
        return value


def _float(value: Any) -> float:
    """As the tables of training are read: Python also takes 1_0 and the digits of all scripts for numbers. Raises ValueError."""
    text = str(value)
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return float(text)


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
        number = _float(value)
    except ValueError as error:
        raise Refused(f"column {name!r:.60} has {value!r:.40}, which is no number") from error
    if not math.isfinite(number):
        raise Refused(f"column {name!r:.60} has {value!r:.40}, which is no finite number")
    return number


def _table(path: Path, wanted: Sequence[str] | None) -> Iterator[dict[Any, Any]]:
    """`wanted`: columns, beside which others need not be read; None: all. Raises Refused."""
    try:
        with reading.opened(path) as file:
            yield from (_parquet if path.suffix.lower() == ".parquet" else _csv)(file, wanted)
    except Refused:
        raise
    except (OSError, ValueError, csv.Error, OverflowError) as error:  # ValueError: what is no UTF-8, a date that Python has not
        raise Refused(f"it is no table that can be read ({_first_line(error)})") from error


def _csv(file: io.FileIO, wanted: Sequence[str] | None) -> Iterator[dict[Any, Any]]:
    with io.TextIOWrapper(io.BufferedReader(file), encoding="utf-8-sig", newline="") as text:
        found = csv.DictReader(text)
        names = [*(found.fieldnames or ())]
        if not names:
            raise Refused("it is empty: a table's first line names its columns")
        if wanted is None and all(map(_is_number, names)):
            raise Refused("its first line is numbers, and is to name the columns; write such a line above")
        _check_once(names)
        yield from found


def _parquet(file: io.FileIO, wanted: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        _check_once(names)
        columns = None if wanted is None else [name for name in wanted if name in names]
        for batch in table.iter_batches(_MOST_AT_ONCE, columns=columns):
            yield from batch.to_pylist()
    except ArrowException as error:
        raise Refused(f"it is no table that can be read ({_first_line(error)})") from error


def _check_once(names: Sequence[str]) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise Refused(f"it has the column {twice[0]!r:.60} twice")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(_float(text))
    except ValueError:
        return False


def _first_line(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return (said.splitlines() or [type(error).__name__])[0][:120]
