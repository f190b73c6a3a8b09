"""A table, CSV or parquet, without code: every column but the target is a feature, the target a class or a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.numbers import targets
from data.numbers.columns import encoded, missing, of_column
from data.numbers.rows import Read, Rows
from data.options import one_of
from data.store.duplicates import Duplicates
from data.store.files import first_line, notice, os_error, sha256_file
from data.store.parquet import read_columns

_MOST_AT_ONCE = 256 << 20
"""Bytes of a CSV that decide what type a column is."""


class Table(Rows):
    def __init__(
        self,
        path: str | None = None,
        target: str | None = None,
        kind: str = "auto",
        missing: str = "refuse",
        leave_out: Sequence[str] = (),
        delimiter: str = ",",
        validation: float = 0.1,
        test: float = 0.1,
        seed: int = 0,
        standardise: bool = True,
        cache: str | None = None,
        fingerprint: str | None = None,
        duplicates: str = "keep",
    ) -> None:
        """`path`: of a file with a line of names on top, or of a .parquet. `target`: the column to be found; `kind`: auto, classes or
        number. `missing`: what becomes of a row in which a value is missing or not finite: refuse, drop, or mean of the column in the
        training part. `leave_out`: columns. `delimiter`: of CSV. `duplicates`: rows that are there before, target and all: keep, drop (the
        first stays) or refuse. The others are those of `Rows`. Raises ValueError naming the option."""
        one_of("data.kind", kind, targets.KINDS)
        one_of("data.missing", missing, ("refuse", "drop", "mean"))
        self._duplicates = Duplicates(duplicates)
        if len(delimiter) != 1:
            raise ValueError(f"data.delimiter={delimiter!r}: it is one character; type data.delimiter=';', for example")
        if isinstance(leave_out, str):
            raise ValueError(f"data.leave_out={leave_out}: it is a list; type 'data.leave_out=[{leave_out}]'")
        if path is None:
            raise ValueError("data.path is null: no table; type data.path=/path/to/a.csv, or that of a .parquet")
        super().__init__("table", cache, validation, test, seed, standardise, fingerprint)
        self.path, self.target = Path(path).expanduser().absolute(), target
        self._kind, self._missing, self._delimiter, self._left_out = kind, missing, delimiter, list(leave_out)

    def _pinned(self) -> dict[str, object]:
        return {"path": str(self.path)}

    def _identity(self) -> list[Any]:
        if not self.path.is_file():
            raise FileNotFoundError(f"data.path={self.path}: there is no such file; type that of a table, CSV or parquet")
        more = [self._duplicates.policy] if self._duplicates.matters else []
        return [sha256_file(self.path), self.target, self._kind, self._missing, self._left_out, self._delimiter, *more]

    def _read(self) -> Read:
        if self.path.suffix.lower() == ".parquet":
            torn = "copy it again, or type the path of a table that is whole"
            table = read_columns(self.path, lambda schema: self._chosen(schema.names), lambda why: self._refuse(f"{why}; {torn}"))
        else:
            table = self._read_csv()
        column = of_column(table.column(self.target), str(self.target), self._refuse)
        features, names, kinds = encoded(table.drop_columns([self.target]), self._refuse)
        is_missing = column == "" if column.dtype.kind == "U" else np.isnan(column)
        if is_missing.any() and self._missing != "drop":
            where = int(is_missing.argmax())
            raise self._refuse(f"has no {self.target} in {is_missing.sum():,} rows, first in row {where + 1}; type data.missing=drop")
        there = np.flatnonzero(~is_missing)
        kept = there[missing(features[there], names, self._missing, self._refuse)]
        if len(kept) < len(column):
            notice(f"data: {len(column) - len(kept):,} of {len(column):,} rows have a value missing and are left out (data.missing=drop)")
        if self._duplicates.matters:
            kept = self._unique(features, column, kept)
        whole = _as_typed(table.column(self.target).type, column[kept])
        found = targets.of(whole, self._kind, f"data.target={self.target}")
        return Read(features[kept], found, names, kinds, fill=self._missing == "mean")

    def _unique(self, features: NDArray[np.float32], column: NDArray[Any], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of rows that are not there before. Raises ValueError where that is refused."""
        rows = ((place, features[place].tobytes() + repr(column[place].item()).encode()) for place in places.tolist())
        stay = [place for place, content in rows if self._duplicates.is_new(content, self.path.name, None, f"row {place + 1}")]
        self._duplicates.tell()
        if at_odds := len(stay) - len({features[place].tobytes() for place in stay}):
            notice(f"WARNING: {at_odds:,} rows have the features of another and another {self.target}; they stay")
        return np.array(stay, np.int64)

    def _chosen(self, names: list[str]) -> list[str]:
        """The columns that are read. Raises ValueError."""
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise self._refuse(f"has two columns {twice}; give one of them another name")
        asked = {"data.target": [self.target], "data.leave_out": self._left_out}
        for key, name in ((key, name) for key, each in asked.items() for name in each):
            if name not in names:
                raise ValueError(
                    f"{key}={'null' if name is None else name}: {self.path.name} has no such column{self._instead(name, names)}"
                )
        if self.target in self._left_out:
            raise ValueError(f"data.leave_out: {self.target} is the target; name other columns, or another data.target=")
        return [name for name in names if name not in self._left_out]

    def _instead(self, name: str | None, names: Sequence[str]) -> str:
        """What to type for a column that there is none of: where all names are one, another delimiter."""
        typed = {
            ";": "'data.delimiter=\";\"'",
            "\t": "$'data.delimiter=\"\\t\"'",
            "|": "'data.delimiter=\"|\"'",
            ",": "'data.delimiter=\",\"'",
        }
        other = next((each for each in typed if len(names) == 1 and each in names[0]), None)
        if other is not None:
            return f"; it has one column, {names[0]!r:.80}; type {typed[other]}"
        return f"{_nearest(name, names)}{'; type data.target= with one of them' if name is None else ''}"

    def _read_csv(self) -> Any:
        import pyarrow as pa
        from pyarrow import csv

        try:
            size = self.path.stat().st_size
            at_once = csv.ReadOptions(block_size=max(1 << 16, min(size + 1, _MOST_AT_ONCE)))
            with self.path.open("rb") as file:
                table = csv.read_csv(file, at_once, csv.ParseOptions(delimiter=self._delimiter))
            if not table.num_rows:
                raise self._refuse("has no rows below its line of names; type the path of a table that has some")
            return table.select(self._chosen(table.column_names))
        except pa.ArrowException as error:
            raise self._refuse(f"is not readable as CSV ({first_line(error)}); mend it, or type data.delimiter=") from error
        except OSError as error:
            raise os_error(error.errno, str(self._refuse(f"cannot be read ({error.strerror or first_line(error)})"))) from error

    def _refuse(self, why: str) -> ValueError:
        return ValueError(f"data.path={self.path}: {why}")


def _as_typed(kind: Any, values: NDArray[Any]) -> NDArray[Any]:
    """What were whole numbers or truth values, and is float64 because some may have been missing."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return values.astype(np.bool_)
    return values.astype(np.int64) if pa.types.is_integer(kind) else values


def _nearest(name: str | None, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
