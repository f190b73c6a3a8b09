"""A table of pyarrow as numbers: what is a number stays one, of a text each kind becomes a column of its own, 1 where it is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_KINDS = 100
"""Of text in a column: more are most often names or remarks, from which nothing can be learnt."""
Refusal = Callable[[str], ValueError]


class Numbers(NamedTuple):
    features: NDArray[np.float32]
    """(n, columns); NaN where there is no value."""
    names: list[str]
    kinds: list[str | None]
    """Of each column the text for which it is 1, and 0 for others; None where it is a number."""


def encoded(table: Any, refuse: Refusal) -> Numbers:
    """All columns of a table. Raises what `refuse` makes of one that has no value, the same one in all rows, or another type."""
    columns: list[NDArray[np.float32]] = []
    names: list[str] = []
    said: list[str | None] = []
    for name in table.column_names:
        values = of_column(table.column(name), name, refuse)
        if values.dtype.kind == "f":
            _check_varies(np.unique(values[~np.isnan(values)]), name, refuse)
            columns.append(values.astype(np.float32))
            names.append(name)
            said.append(None)
            continue
        is_said = values != ""
        kinds, places = np.unique(values[is_said], return_inverse=True)
        _check_varies(kinds, name, refuse)
        if len(kinds) > _MOST_KINDS:
            raise refuse(f"has {len(kinds):,} kinds of text in column {name}; leave it out: 'data.leave_out=[{name}]'")
        for number, kind in enumerate(kinds):
            column = np.full(len(values), np.nan, np.float32)
            column[is_said] = places == number
            columns.append(column)
            names.append(f"{name}={kind}")
            said.append(str(kind))
    if not columns:
        raise refuse("has no column beside the target; write some into it, or leave fewer out: data.leave_out")
    return Numbers(np.stack(columns, 1), names, said)


def missing(features: NDArray[np.float32], names: Sequence[str], policy: str, refuse: Refusal) -> NDArray[np.int64]:
    """Places of the rows that stay. Raises what `refuse` makes of the first column without a value somewhere, where that is the policy, and
    where no row would be left."""
    is_missing = np.isnan(features)
    if policy == "refuse" and is_missing.any():
        column = int(is_missing.any(0).argmax())
        rows = np.flatnonzero(is_missing[:, column])
        raise refuse(
            f"has no number in {len(rows):,} rows of column {names[column].partition('=')[0]}, first in row {rows[0] + 1}; type "
            "data.missing=drop to leave such rows out, or data.missing=mean"
        )
    kept = np.flatnonzero(~is_missing.any(1)) if policy == "drop" else np.arange(len(features))
    if not len(kept):
        raise refuse("has no row without a missing value; type data.missing=mean")
    return kept


def of_column(column: Any, name: str, refuse: Refusal) -> NDArray[Any]:
    """(n,) float64, NaN where there is no value or one that is not finite; or texts, "" where there is none. Raises what `refuse` makes of
    another type."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.int8()), pa.int8()
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = column.to_numpy().astype(np.float64)
        return np.where(np.isfinite(values), values, np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(["" if text is None else text for text in column.to_pylist()], np.str_)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise refuse(
            f"has text in column {name} that is not in UTF-8; write it so (iconv -f latin1 -t utf-8), or leave it out: "
            f"'data.leave_out=[{name}]'"
        )
    raise refuse(f"has {kind} in column {name}, which is neither number nor text; leave it out: 'data.leave_out=[{name}]'")


def _check_varies(kinds: NDArray[Any], name: str, refuse: Refusal) -> None:
    if len(kinds) < 2:
        what = f"the same in all rows of column {name}, {kinds[0]}" if len(kinds) else f"no value in column {name}"
        raise refuse(f"has {what}, from which nothing can be learnt; leave it out: 'data.leave_out=[{name}]'")
