"""Slices of tensors in files: the same numbers as of the whole, wherever they go, and no more of the file is read than that."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from launcher.errors import CheckpointError
from launcher.train.checkpoint import slices
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.train.checkpoint.slices import Files, header

SEED = 20261127
NAME = "model.safetensors"


def checkpoint(path: Path) -> Checkpoint:
    return Checkpoint(path, 1, {each.name: {"bytes": each.stat().st_size, "sha256": ""} for each in path.iterdir()}, 1)


def wholes() -> dict[str, torch.Tensor]:
    torch.manual_seed(SEED)
    return {
        "scalar": torch.tensor(3.5),
        "none": torch.empty(0, 4),
        "line": torch.randn(5000),
        "wide": torch.randn(40, 3000),
        "long": torch.randn(4000, 7),
        "filter": torch.randn(16, 6, 3, 3),
        "deep": torch.randn(3, 50, 4, 300),
        "half": torch.randn(30, 20).bfloat16(),
        "double": torch.randn(9, 9, dtype=torch.float64),
        "count": torch.arange(60).reshape(3, 20),
        "mask": torch.rand(11, 13) > 0.5,
    }


@pytest.fixture
def here(tmp_path: Path) -> Checkpoint:
    save_file(wholes(), tmp_path / NAME)
    return checkpoint(tmp_path)


@pytest.fixture(params=[4 << 20, 96], ids=["blocks", "small blocks"])
def files(here: Checkpoint, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    monkeypatch.setattr(slices, "_BLOCK", request.param)
    with Files(here) as files:
        yield files


def place(shape: torch.Size, like: torch.Tensor, how: str) -> torch.Tensor:
    if how == "other strides" and shape:
        return torch.empty(tuple(reversed(shape)), dtype=like.dtype).permute(*reversed(range(len(shape))))
    if how == "within another" and shape:
        return torch.empty(*(size + 2 for size in shape), dtype=like.dtype)[tuple(slice(1, size + 1) for size in shape)]
    return torch.empty(shape, dtype=torch.float64 if how == "another type" else like.dtype)


@pytest.mark.parametrize("how", ["plain", "other strides", "within another", "another type"])
def test_any_slice_is_that_of_the_whole(files: Files, how: str) -> None:
    draw = random.Random(SEED)
    for name, whole in wholes().items():
        for _ in range(12):
            begin = tuple(draw.randrange(size) if size else 0 for size in whole.shape)
            ends = [draw.choice([size, draw.randint(low, size)]) for low, size in zip(begin, whole.shape, strict=True)]
            part = whole[tuple(slice(low, high) for low, high in zip(begin, ends, strict=True))]
            into = place(part.shape, part, how)
            files.read(NAME, name, begin, into)
            assert torch.equal(into, part.to(into.dtype)), (name, begin, ends)
        assert torch.equal(files.tensor(NAME, name), whole)


def read_so_far() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize(
    ("rows", "columns", "most"),
    [((1000, 1250), (0, 4096), 1.0), ((0, 2000), (2048, 4096), 1.0), ((100, 200), (1024, 3072), 1.0), ((50, 60), (7, 9), 2100)],
    ids=["rows", "columns", "both", "a few numbers of each row"],
)
def test_no_more_is_read_than_overlaps(tmp_path: Path, rows: tuple[int, int], columns: tuple[int, int], most: float) -> None:
    """Of 2000 x 4096 numbers, and nothing of what lies beside them. Where a row has less than a page that is wanted, the row is read."""
    save_file({"a": torch.zeros(3_000_000), "w": torch.zeros(2000, 4096), "z": torch.zeros(3_000_000)}, tmp_path / NAME)
    into = torch.empty(rows[1] - rows[0], columns[1] - columns[0])
    with Files(checkpoint(tmp_path)) as files:
        files.header(NAME)
        before = read_so_far()
        files.read(NAME, "w", (rows[0], columns[0]), into)
        assert into.nbytes <= read_so_far() - before <= most * into.nbytes + 4096


def test_a_header_alone_is_read(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(4_000_000)}, tmp_path / NAME)
    here, before = checkpoint(tmp_path), read_so_far()
    assert header(here, NAME)["w"].shape == (4_000_000,)
    assert read_so_far() - before < 10_000


def test_few_files_are_open_at_a_time(tmp_path: Path) -> None:
    for number in range(100):
        save_file({"w": torch.full((3,), number)}, tmp_path / f"model.{number}.safetensors")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Files(checkpoint(tmp_path)) as files:
        for turn in range(2):
            assert [int(files.tensor(f"model.{number}.safetensors", "w")[turn]) for number in range(100)] == list(range(100))
        assert len(list(Path("/proc/self/fd").iterdir())) - before <= 40
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_is_cut_off_after_it_was_verified_is_said(here: Checkpoint) -> None:
    """Of a map of it the kernel would end the process."""
    with Files(here) as files:
        files.header(NAME)
        with (here.path / NAME).open("r+b") as file:
            file.truncate(here.files[NAME]["bytes"] - 4000)
        with pytest.raises(CheckpointError, match=r"model\.safetensors ends before what it should hold"):
            [files.tensor(NAME, name) for name in wholes()]


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "entry",
    [
        {**GOOD, "dtype": "PICKLE"}, {**GOOD, "dtype": 4}, {**GOOD, "shape": [-2]}, {**GOOD, "shape": [2.0]}, {**GOOD, "shape": 2},
        {**GOOD, "shape": [1 << 60]}, {**GOOD, "data_offsets": [8, 0]}, {**GOOD, "data_offsets": [4, 12]}, {**GOOD, "data_offsets": [0]},
        {**GOOD, "data_offsets": [True, 9]}, {"dtype": "F32"}, [], None, "w",
    ],
    ids=str,
)  # fmt: skip
def test_a_header_of_what_is_not_there_is_refused(tmp_path: Path, entry: object) -> None:
    text = json.dumps({"w": entry}).encode()
    (tmp_path / NAME).write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ValueError, match=r"model\.safetensors is no safetensors file: "):
        header(checkpoint(tmp_path), NAME)
