"""Parquet files that are small as they lie there and large as they are read: refused in one line, in two seconds and 200 MB."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import REPO
from hostile import MOST_BYTES, MOST_SECONDS
from PIL import Image

from data import cifar10
from data.store import pages
from data.store.corrupt import Corrupt
from data.store.parquet import read_images

READ = """
import json, os, sys, time
from pathlib import Path
import numpy, pyarrow.parquet, PIL.Image
from data.store.corrupt import Corrupt
from data.store.parquet import read_images

def read(path):
    begin, told = time.monotonic(), []
    try:
        for _ in read_images(path.parent, path.name, image="img", label="label", classes=10, size=(32, 32), corrupt=Corrupt(0)):
            told.append("it was read")
    except ValueError as error:
        told.append(str(error))
    seconds, lines = time.monotonic() - begin, Path("/proc/self/status").read_text().splitlines()
    kilobytes = int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    print(json.dumps([told, seconds, kilobytes << 10]), flush=True)

for path in sorted(Path(sys.argv[1]).iterdir()):
    if not os.fork():
        read(path)
        os._exit(0)
    os.wait()
"""
NO_PAGE = bytes.fromhex("1500150015002c0000")
"""A header of a page of nothing."""
PAGE_OF_2_GB = bytes.fromhex("150015feffffff0f15002c150200000000")


def table(cells: list[bytes | None], **options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        image = pa.array([{"bytes": cell, "path": None} for cell in cells], kind)
        pq.write_table(pa.table({"img": image, "label": pa.array([0] * len(cells), pa.int64())}), path, compression="zstd", **options)

    return write


def footer(raw: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(b"PAR1" + raw + len(raw).to_bytes(4, "little") + b"PAR1") and None


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 30)


def varint(value: int) -> bytes:
    piece = bytearray()
    while value > 127:
        piece.append(value & 127 | 128)
        value >>= 7
    return bytes([*piece, value])


def with_list(field: int, element: bytes, number: int) -> bytes:
    """FileMetaData with its version and a list of structs."""
    return bytes.fromhex("1502") + bytes([(field - 1) << 4 | 9, 0xFC]) + varint(number) + element * number + b"\0"


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a cell of 35 MB of zeros": (table([bytes(35_000_000)]), "has a page of 33 MiB"),
    "a dictionary with one cell of 35 MB": (table([bytes(35_000_000)] * 3, dictionary_pagesize_limit=1 << 30), "has a page of 33 MiB"),
    "a cell of 33 MB": (table([bytes(33_000_000)]), "in row 0 that cannot be decoded"),
    "a cell of 300 KB a thousand times": (table([bytes(300_000)] * 1_000), "in row 0 that cannot be decoded"),
    "a cell that is there more often than the file has bytes": (table([b"x"] * 30_000), "declares more than 29999 rows in"),
    "prefixes that are shared": (
        table([bytes(1_000_000) + bytes([n]) for n in range(200)], use_dictionary=False, column_encoding={"img.bytes": "DELTA_BYTE_ARRAY"}),
        "in row 0 that cannot be decoded",
    ),
    "two hundred thousand rows of nothing": (table([None] * 200_000), "rows in "),
    "a footer of row groups": (footer(with_list(4, b"\x26\0\0", 300_000)), "more fields in its footer"),
    "a footer of columns": (
        footer(with_list(4, bytes.fromhex("19fcc0843d") + b"\x26\0\0" * 1_000_000 + b"\0", 1)),
        "more fields in its footer",
    ),
    "a schema of thirty thousand levels": (footer(with_list(2, bytes.fromhex("481178150200"), 30_000)), "parquet"),
    "a deep struct": (footer(b"\x1c" * 10_000), "structs that are too deep"),
    "a list that is longer than the file": (footer(bytes.fromhex("15022 9fcffffffff0f".replace(" ", ""))), "is torn"),
    "a footer that is longer than the file": (lambda path: path.write_bytes(b"PAR1\xff\xff\xff\x7fPAR1") and None, "no footer"),
    "a hundred gigabytes of nothing": (sparse, "no footer at its end"),
    "nothing": (Path.touch, "no footer at its end"),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What each was told, in what time and with how much memory; all from one start, which takes longer than all of them."""
    place = tmp_path_factory.mktemp("bombs")
    for number, (write, _) in enumerate(BOMBS.values()):
        write(place / f"{number:02d}.parquet")
    argv = [sys.executable, "-c", READ, str(place)]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)
    for path in place.iterdir():
        path.unlink()
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(BOMBS), f"{list(BOMBS)[len(lines)]}: {done.stderr[-500:]}"
    return dict(zip(BOMBS, lines, strict=True))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_line_and_costs_little(name: str, refusals: dict[str, list[Any]]) -> None:
    told, seconds, memory = refusals[name]
    assert len(told) == 1, told
    assert told[0].startswith("data.root=")
    assert BOMBS[name][1] in told[0]
    assert "\n" not in told[0]
    assert seconds < MOST_SECONDS
    assert memory < MOST_BYTES


@pytest.mark.parametrize(
    ("header", "words"),
    [(PAGE_OF_2_GB, "has a page of 2047 MiB"), (NO_PAGE, "has more pages than"), (b"\0", "is torn"), (b"\x1c" * 20, "too deep")],
)
def test_what_a_page_says_counts_and_not_what_the_footer_says_of_it(header: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "pages.parquet"
    path.write_bytes(header * 200_000)
    column = SimpleNamespace(
        path_in_schema="img.bytes", data_page_offset=0, dictionary_page_offset=None, total_compressed_size=path.stat().st_size, num_values=9
    )
    group = SimpleNamespace(num_rows=9, num_columns=1, column=lambda _: column)
    metadata = SimpleNamespace(num_row_groups=1, row_group=lambda _: group)
    begin = time.monotonic()
    with pytest.raises(ValueError, match=words):
        pages.largest(path, metadata, ["img.bytes"])
    assert time.monotonic() - begin < MOST_SECONDS


def test_a_file_of_nothing_is_refused_before_it_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "plain_text").mkdir()
    for name in cifar10.FILES.values():
        sparse(tmp_path / name)
    begin = time.monotonic()
    with pytest.raises(ValueError, match="no footer at its end"):
        cifar10.CIFAR10(root=str(tmp_path), cache=str(tmp_path / "cache")).prepare()
    assert time.monotonic() - begin < MOST_SECONDS


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_group_size": 7},
        {"data_page_version": "2.0", "data_page_size": 500},
        {"use_dictionary": False, "write_statistics": False},
        {"column_encoding": {"img.bytes": "DELTA_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED"}, "use_dictionary": False},
        {"write_page_index": True, "write_page_checksum": True},
    ],
    ids=str,
)
def test_whatever_a_writer_prefers_is_read(options: dict[str, Any], tmp_path: Path) -> None:
    """Unlike pictures, so that there are pages of many kinds."""
    cells: list[bytes | None] = []
    for number in range(300):
        out = io.BytesIO()
        Image.frombytes("RGB", (32, 32), bytes((number * 7 + place * place) % 256 for place in range(3072))).save(out, "PNG")
        cells.append(out.getvalue())
    table(cells, **options)(tmp_path / "good.parquet")
    read = read_images(tmp_path, "good.parquet", image="img", label="label", classes=10, size=(32, 32), corrupt=Corrupt(0))
    assert sum(len(labels) for _, labels in read) == 300
