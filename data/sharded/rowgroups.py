"""A parquet file, a row group at a time. What it says of its own size is looked at first, of each group before that one is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.store import pages
from data.store.files import first_line

MOST_GROUP = 1 << 30
"""Bytes of the columns that are read: a whole group lies in memory."""
_MOST_VALUES = 1 << 28
"""Of a column, in a group: lists of many numbers."""
_WIDTHS = {"FLOAT": 4, "INT32": 4, "DOUBLE": 8, "INT64": 8}
"""Bytes of a number in memory: in a file one of a dictionary takes fewer."""
_BATCH = 64 << 20
"""Bytes that a part of a group may come to: thousands of rows may share one picture of a dictionary."""
_ROWS = 4096


class Rows(NamedTuple):
    """Of one row group, in memory."""

    batches: list[list[Any]]
    """Of each batch of rows its columns, arrays of pyarrow: of a picture in Hugging Face's schema the bytes."""
    ends: np.ndarray
    """Behind which row each of them ends."""
    nbytes: int

    def row(self, number: int) -> list[Any]:
        """The values as they are in Python. Raises ValueError where there is no such row."""
        if number >= self.ends[-1]:
            raise ValueError(f"has {self.ends[-1]} rows in a group that had more")
        at = int(np.searchsorted(self.ends, number, side="right"))
        within = number - (int(self.ends[at - 1]) if at else 0)
        return [column[within].as_py() for column in self.batches[at]]


class RowGroups:
    """One file, open."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Raises ValueError, in a few words, where it is no such file or has not these columns; OSError."""
        import pyarrow.parquet as pq

        self._path = path
        with _in_words():
            pages.check_footer(path)
            self._file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        schema = self._file.schema_arrow
        if missing := [name for name in columns if name not in schema.names]:
            self.close()
            raise ValueError(f"has no column {missing[0]}, but {', '.join(f'{each.name}: {each.type}' for each in schema) or 'none'}")
        if twice := [name for name in columns if schema.names.count(name) > 1]:
            self.close()
            raise ValueError(f"has several columns {twice[0]}")
        self._names = list(columns)
        self._columns = [_read_as(schema.field(name)) for name in columns]
        metadata = self._file.metadata
        known = (metadata.schema.column(number).path for number in range(len(metadata.schema)))
        self._leaves = [path for path in known if any(path == name or path.startswith(f"{name}.") for name in self._columns)]

    def close(self) -> None:
        self._file.close()

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Of each group: rows, and bytes of these columns. Raises ValueError where one is too large."""
        metadata = self._file.metadata
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            chunks = [chunk for chunk in map(group.column, range(group.num_columns)) if chunk.path_in_schema in self._leaves]
            size = sum(max(chunk.total_uncompressed_size, chunk.num_values * _WIDTHS.get(chunk.physical_type, 0)) for chunk in chunks)
            if size > MOST_GROUP or any(chunk.num_values > _MOST_VALUES for chunk in chunks):
                raise ValueError(f"has a row group of {size >> 20} MiB; write it anew with smaller ones (row_group_size)")
            yield group.num_rows, size

    def read(self, group: int) -> Rows:
        """Raises ValueError, in a few words; OSError."""
        found: list[list[Any]] = []
        ends: list[int] = []
        with _in_words():
            largest = pages.largest(self._path, self._file.metadata, self._leaves, only=group)
            rows, total = max(1, min(_ROWS, _BATCH // largest)), 0
            for batch in self._file.iter_batches(rows, row_groups=[group], columns=self._columns):
                total += batch.nbytes
                if total > MOST_GROUP:
                    raise ValueError("has a row group that is larger than it says")
                found.append([_plain(batch.column(name)) for name in self._names])
                ends.append(len(batch) + (ends[-1] if ends else 0))
        return Rows(found, np.array(ends or [0]), total)


@contextmanager
def _in_words() -> Iterator[None]:
    """What Arrow and the disk say of a file, as a ValueError where the file is to blame."""
    import pyarrow as pa

    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError("is gone: there is no such file") from error
    except pa.ArrowException as error:
        raise ValueError(f"is not readable as parquet ({first_line(error)})") from error
    except OSError as error:
        if error.errno is None:  # Arrow says so of a page that does not decompress; the disk's own errors have a number
            raise ValueError(f"is not readable as parquet ({first_line(error)})") from error
        raise


def _read_as(field: Any) -> str:
    """Of a picture in Hugging Face's schema its bytes, and not its path."""
    import pyarrow as pa

    return f"{field.name}.bytes" if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0 else field.name


def _plain(column: Any) -> Any:
    """Without the struct around bytes, which would be a dict for each row; a row whose struct is null is null."""
    import pyarrow as pa

    is_picture = pa.types.is_struct(column.type) and column.type.num_fields == 1 and column.type.get_field_index("bytes") == 0
    return column.flatten()[0] if is_picture else column
