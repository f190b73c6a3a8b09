"""What a parquet file says about its own size, looked at before anything of it is read into memory.

A page says in its header how large it is once it is decompressed, and a decoder makes room for that, whatever the footer says: a kilobyte
may stand for two gigabytes. So every header of the columns that are read is looked at, and no page: a seek for each. The footer is walked
likewise, for four bytes of it can cost a kilobyte of memory. Both are structs of Thrift's compact protocol
(https://github.com/apache/parquet-format, parquet.thrift).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

MOST_PAGE = 32 << 20
"""Bytes of one page. Writers aim at one MiB; a picture that is larger has a page of its own."""
_MOST_FOOTER = 64 << 20
_STEPS = 100_000
"""Fields, and elements of lists. Besides what a large file may have: every row group has a dozen for each column."""
_BYTES_PER_STEP = 2_000
_BYTES_PER_PAGE = 500
_PAGES = 10_000
_DEEP = 12
"""Levels of structs: parquet.thrift has seven."""


class Walk:
    """Through structs, at most so many fields of them."""

    def __init__(self, file: IO[bytes], steps: int) -> None:
        self._file, self._left = file, steps

    def struct(self, level: int = 0) -> dict[int, Any]:
        """Numbers and structs by their ids; all else is passed over. Raises ValueError where it is none, or too much."""
        if level > _DEEP:
            raise ValueError("has structs that are too deep")
        found: dict[int, Any] = {}
        last = 0
        while head := self._byte():
            self._step()
            last = last + (head >> 4) if head >> 4 else self._number()
            found[last] = self._value(head & 15, level)
        return found

    def _value(self, kind: int, level: int, *, of_list: bool = False) -> Any:
        if kind in (1, 2):
            return self._byte() if of_list else kind == 1
        if kind in (4, 5, 6):
            return self._number()
        if kind in (3, 7, 8):
            self._pass({3: 1, 7: 8}.get(kind) or self._varint())
        elif kind in (9, 10):
            head = self._byte()
            for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
                self._step()
                self._value(head & 15, level + 1, of_list=True)
        elif kind == 12:
            return self.struct(level + 1)
        else:
            raise ValueError("is torn, or no parquet")  # parquet.thrift has no maps
        return None

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ValueError("has more fields in its footer or in a page's header than a file of its size can need")

    def _byte(self) -> int:
        byte = self._file.read(1)
        if not byte:
            raise ValueError("is torn, or no parquet")
        return byte[0]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("is torn, or no parquet")

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _pass(self, size: int) -> None:
        self._file.seek(min(size, 1 << 40), os.SEEK_CUR)


def check_footer(path: Path) -> None:
    """Before a library reads it. Raises ValueError, OSError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if len(tail) < 8 or tail[4:] != b"PAR1" or length > size - 8:
            raise ValueError("is not readable as parquet (no footer at its end)")
        if length > _MOST_FOOTER:
            raise ValueError(f"has a footer of {length >> 20} MiB; write it anew as several files")
        file.seek(size - 8 - length)
        Walk(file, _STEPS + size // _BYTES_PER_STEP).struct()


def largest(path: Path, metadata: Any, columns: Iterable[str], bound: int = MOST_PAGE, only: int | None = None) -> int:
    """Bytes of the largest page of these columns: no value in it is larger. `metadata`: pyarrow's. `only`: of that row group. Raises
    ValueError where one is larger than `bound`, or there are more pages or rows than a file of its size can have; OSError.
    """
    wanted, most = frozenset(columns), 1
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        groups = map(metadata.row_group, range(metadata.num_row_groups) if only is None else [only])
        left = _PAGES + size // _BYTES_PER_PAGE
        rows = 0
        for group in groups:
            rows += abs(group.num_rows)
            if rows > size:
                raise ValueError(f"declares more than {rows - 1} rows in {size} bytes")
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema in wanted:
                    for page in _pages(file, column, size, bound):
                        most, left = max(most, page), left - 1
                        if left < 0:
                            raise ValueError("has more pages than a file of its size can need")
    return most


def _pages(file: IO[bytes], column: Any, size: int, bound: int) -> Iterable[int]:
    """How large each page of a column of a row group is."""
    place = column.data_page_offset
    if column.dictionary_page_offset and column.dictionary_page_offset < place:
        place = column.dictionary_page_offset
    end, values = place + column.total_compressed_size, 0
    if not 0 <= place <= end <= size:
        raise ValueError("is torn, or no parquet")
    while values < column.num_values and place < end:
        file.seek(place)
        header = Walk(file, 10_000).struct()
        large, small = header.get(2), header.get(3)
        if not isinstance(large, int) or not isinstance(small, int) or min(large, small) < 0:
            raise ValueError("is torn, or no parquet")
        if max(large, small) > bound:
            raise ValueError(f"has a page of {max(large, small) >> 20} MiB; write it anew with pages of at most {bound >> 20} MiB")
        yield max(large, small)
        of = header.get(5) or header.get(8)
        values += max(0, of.get(1, 0)) if isinstance(of, dict) else 0
        place = file.tell() + small
