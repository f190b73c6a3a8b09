"""Out of a parquet file: images and labels in the schema of Hugging Face image datasets (`<image>.bytes`, `<label>`); texts."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.store import pages
from data.store.corrupt import Corrupt, Unlabelled
from data.store.files import first_line, os_error

ROWS = 1000
_BATCH = 16 << 20
"""Bytes a batch may come to; a decoder needs several times as much. Thousands of rows may share one picture of a dictionary."""
_MOST_TEXTS = 1 << 30
"""Bytes of a page of texts: writers count 1,024 values before they look how large a page has grown, which of books is half a GiB."""
Refusal = Callable[[str], ValueError]


def read_images(
    root: Path, name: str, *, image: str, label: str, classes: int, size: tuple[int, int], corrupt: Corrupt, mode: str = "RGB"
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Decode `root/name`, at most 1000 rows at a time: images (b, height, width, channels) and labels (b,).

    `size` is (height, width), `mode` Pillow's: RGB for three channels, L for one. An image that cannot be decoded or has another size,
    and a label out of 0..classes-1, are for `corrupt` to leave out. Raises ValueError with the row where it does not, where the file is
    torn or has another schema; OSError where it cannot be read.
    """

    def refuse(why: str) -> ValueError:
        return ValueError(
            f"data.root={root}: {name} {why}; download it again or point data.root at a good copy (columns: {image}.bytes, {label})"
        )

    columns = [f"{image}.bytes", label]
    first = 0
    for batch, _ in _batches(root / name, columns, lambda schema: _check_schema(schema, image, label, refuse), refuse):
        samples = zip(batch.column(image).field("bytes").to_pylist(), batch.column(label).to_pylist(), strict=True)
        good: list[tuple[NDArray[np.uint8], int]] = []
        for row, (encoded, number) in enumerate(samples, first):
            try:
                good.append((_decode(encoded, size, row, refuse, mode), _class(number, classes, row, refuse)))
            except ValueError as error:
                corrupt.leave_out(error)
        if good:
            yield np.stack([pixels for pixels, _ in good]), np.array([of for _, of in good], np.int64)
        first += len(batch)


def read_texts(path: Path, field: str) -> Iterator[tuple[str, float]]:
    """The texts of column `field`, row by row, each with how much of the file is read then, from 0 to 1.

    Raises ValueError with the row where one has no text, and where the file is torn or has another schema; OSError where it cannot be read.
    """
    import pyarrow as pa

    def refuse(why: str) -> ValueError:
        return ValueError(f"data.path={path}: {why}; download it again, or name the column with the texts: data.field=")

    def check(schema: Any) -> None:
        if field not in schema.names:
            raise refuse(f"has no column {field}, but {', '.join(f'{each.name}: {each.type}' for each in schema) or 'none'}")
        kind = schema.field(field).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise refuse(f"has no texts in column {field} ({kind})")

    first = 0
    for batch, rows in _batches(path, [field], check, refuse, most=_MOST_TEXTS):
        try:
            texts = batch.column(field).to_pylist()
        except UnicodeDecodeError as error:
            raise refuse(f"has a text in rows {first} to {first + len(batch) - 1} that is no UTF-8") from error
        for row, text in enumerate(texts, first):
            if text is None:
                raise refuse(f"has no text in row {row}")
            yield text, (row + 1) / rows
        first += len(batch)


def read_columns(path: Path, chosen: Callable[[Any], list[str]], refuse: Refusal) -> Any:
    """The columns that `chosen` takes of the file's schema, as a table of pyarrow. Raises what `chosen` does, what `refuse` makes of what
    is wrong with the file, and OSError where it cannot be read."""
    import pyarrow as pa

    columns: list[str] = []
    batches = [batch for batch, _ in _batches(path, columns, lambda schema: columns.extend(chosen(schema)), refuse)]
    if not batches:
        raise refuse("has no rows")
    return pa.Table.from_batches(batches)


def _batches(
    path: Path, columns: list[str], check: Callable[[Any], None], refuse: Refusal, most: int = pages.MOST_PAGE
) -> Iterator[tuple[Any, int]]:
    """Record batches of `columns`, and how many rows the file has. `check` looks at its schema. Raises what `refuse` makes of what is wrong
    with the file, and OSError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        try:
            pages.check_footer(path)
        except ValueError as error:
            raise refuse(str(error)) from error
        # Page by page, and not a whole row group ahead.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            check(file.schema_arrow)
            try:
                rows = min(ROWS, max(1, _BATCH // pages.largest(path, file.metadata, columns, most)))
            except ValueError as error:
                raise refuse(str(error)) from error
            for batch in file.iter_batches(rows, columns=columns):
                yield batch, file.metadata.num_rows
    except pa.ArrowException as error:
        raise refuse(f"is not readable as parquet ({first_line(error)})") from error
    except OSError as error:
        # Arrow reports a page that does not decompress as an OSError without a number; the disk's own errors have one.
        if error.errno is None:
            raise refuse(f"is not readable as parquet ({first_line(error)})") from error
        raise os_error(error.errno, str(refuse(f"cannot be read ({error.strerror or first_line(error)})"))) from error


def _check_schema(schema: Any, image: str, label: str, refuse: Refusal) -> None:
    import pyarrow as pa

    columns = ", ".join(f"{field.name}: {field.type}" for field in schema) or "none"
    if image not in schema.names or label not in schema.names:
        raise refuse(f"has the columns {columns}")
    kind = schema.field(image).type
    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else None
    if inner is None or not (pa.types.is_binary(inner) or pa.types.is_large_binary(inner)):
        raise refuse(f"has no encoded images in {image}.bytes ({image}: {kind})")
    if not pa.types.is_integer(schema.field(label).type):
        raise refuse(f"has labels that are not whole numbers ({label}: {schema.field(label).type})")


def _decode(encoded: bytes | None, size: tuple[int, int], row: int, refuse: Refusal, mode: str = "RGB") -> NDArray[np.uint8]:
    from PIL import Image

    if encoded is None:
        raise refuse(f"has no image in row {row}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG"))  # not every decoder that Pillow has
        with image:
            found = (image.height, image.width)
            pixels = np.asarray(image.convert(mode)) if found == size else None  # 43 KB may be two gigabytes of one colour
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise refuse(f"has an image in row {row} that cannot be decoded ({first_line(error)})") from error
    if pixels is None:
        raise refuse(f"has an image of {found[0]}x{found[1]} in row {row}, not {size[0]}x{size[1]}")
    return pixels.reshape(*size, -1)


def _class(value: int | None, classes: int, row: int, refuse: Refusal) -> int:
    if value is None or not 0 <= value < classes:
        refused = refuse(f"has the label {value} in row {row}, not one of 0..{classes - 1}")
        raise Unlabelled(str(refused)) if value in (None, -1) else refused
    return value
