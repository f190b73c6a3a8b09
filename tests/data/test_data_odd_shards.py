"""Shards that somebody else wrote, or writes while they are read: nothing is taken for what it is not, and none for another."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_data_sharded import lines, made, tokens, written
from test_data_webdataset import packed, png

from data.jsonlines import JsonLines
from data.parquet import Parquet
from data.sharded import shards
from data.tokens import Tokens
from data.webdataset import WebDataset

SETS = [WebDataset, Parquet, JsonLines, Tokens]


def shard(of: Any, path: Path, value: int) -> None:
    """Of as many bytes, and the same labels, whatever the value."""
    if of is WebDataset:
        packed(path, {f"{n}.{kind}": b"1" if kind == "cls" else png(value) for n in range(40) for kind in ("png", "cls")})
    elif of is Parquet:
        written(path, [{"image": png(value), "label": n % 2} for n in range(40)], group=40)
    elif of is JsonLines:
        lines(path, [{"image": base64.b64encode(png(value)).decode(), "label": n % 2} for n in range(40)])
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.full(20_000, value, np.uint16).tofile(path)


def options(of: Any) -> dict[str, Any]:
    return {"length": 64, "kinds": 99} if of is Tokens else {}


NAMES = {WebDataset: "train.tar", Parquet: "train.parquet", JsonLines: "train.jsonl", Tokens: "train.bin"}


@pytest.mark.parametrize("damaged", ["refuse", "skip"])
@pytest.mark.parametrize("of", SETS)
def test_a_shard_of_the_same_size_with_other_samples_is_said_while_it_is_read_and_when_a_run_goes_on(
    tmp_path: Path, of: Any, damaged: str
) -> None:
    path = tmp_path / "shards" / NAMES[of]
    shard(of, path, 10)
    data = made(of, path.parent, damaged=damaged, **options(of))
    pinned = {key: value for key, value in data.prepare().items() if key not in ("root", "kinds", "decoder")}
    shutil.copy(path, tmp_path / "copy")
    first, size = data[0][0].clone(), path.stat().st_size
    shard(of, path, 20)
    os.utime(path, ns=(0, 1 << 60))
    assert path.stat().st_size == size
    with pytest.raises(RuntimeError, match=rf"{path.name} was written anew while the run read it; bring back the one"):
        made_again(data)[0]
    with pytest.raises(ValueError, match="has other shards now"):
        made(of, path.parent, damaged=damaged, **{**options(of), **pinned})
    shutil.copy(tmp_path / "copy", path)  # of another time
    assert (made_again(data)[0][0] == first).all() or of is Tokens
    made(of, path.parent, damaged=damaged, **{**options(of), **pinned})


def made_again(data: Any) -> Any:
    """As a worker has it that is started again."""
    return pickle.loads(pickle.dumps(data))  # a pickle of our own, made in this line


@pytest.mark.parametrize("of", SETS)
def test_a_compressed_shard_is_named_as_that(tmp_path: Path, of: Any) -> None:
    path = tmp_path / "shards" / NAMES[of]
    shard(of, path, 10)
    path.write_bytes(gzip.compress(path.read_bytes()) + b"\0")
    path.write_bytes(path.read_bytes()[: path.stat().st_size & ~1])
    with pytest.raises(ValueError, match=r"compressed with gzip" if of is not Parquet else "no footer at its end"):
        made(of, path.parent, **options(of))


@pytest.mark.parametrize("name", ["train.json", "train.bin.gz", "train.idx", "train"])
def test_what_is_named_otherwise_is_not_taken_for_tokens(tmp_path: Path, name: str) -> None:
    (tokens(tmp_path / "shards") / name).write_bytes(b"{}" * 500)
    with pytest.raises(ValueError, match=rf"{name}: is named as neither .bin nor .npy: name those alone, as in data.train="):
        made(Tokens, tmp_path / "shards", length=64)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (b"-1", "'-1' is neither a whole number from 0 nor a word"),
        (b"1.0", "'1.0' is neither a whole number from 0 nor a word"),
        (b"\0\0\0", r"'\x00\x00\x00' is neither"),
        (b"x" * 70_000, "it is larger than 64 KiB"),
    ],
)
def test_a_label_that_is_no_class_makes_no_class(tmp_path: Path, label: bytes, said: str) -> None:
    packed(tmp_path / "shards" / "train.tar", {"a.png": png(1), "a.cls": label, "b.png": png(1), "b.cls": b"\xef\xbb\xbf1\r\n"})
    with pytest.raises(ValueError, match=r"train.tar: a.cls has no label") as failure:
        made(WebDataset, tmp_path / "shards")
    assert said in str(failure.value)
    data = made(WebDataset, tmp_path / "shards", damaged="skip")
    assert (len(data), data.class_names, data.labels.tolist()) == (1, (), [1]), "a mark of UTF-8 is no part of a label"


def test_words_among_numbers_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines(tmp_path / "shards" / "train.jsonl", [{"x": [1], "label": label} for label in (0, 10, "cat", 2)])
    assert made(JsonLines, tmp_path / "shards", columns=("x",)).class_names == ("0", "10", "2", "cat")
    assert "WARNING: labels are words (1, the first 'cat') and whole numbers (3, the first 0)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "more", "said"),
    [
        ({"x": [], "label": 1}, {"columns": ("x",)}, "has no number in x"),
        ({"image": "p.png", "label": 1}, {}, "names 'p.png', which is no file"),
        ({"image": "a\0.png", "label": 1}, {}, "which is no file"),
        ({"image": "\ud800.png", "label": 1}, {}, "which is no file"),
        ({"x": [1], "y": 10**400}, {"columns": ("x",), "label": "y", "kind": "number"}, "is no number"),
    ],
)
def test_a_line_with_less_than_a_sample_is_a_few_words(tmp_path: Path, row: dict[str, Any], more: dict[str, Any], said: str) -> None:
    (tmp_path / "shards" / "p.png").mkdir(parents=True)
    (tmp_path / "shards" / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=said):
        made(JsonLines, tmp_path / "shards", **more)[0]


def test_a_column_that_is_there_twice_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    twice = pa.Table.from_arrays([pa.array([1.0]), pa.array([1.0]), pa.array([0])], names=["x", "x", "label"])
    pq.write_table(twice, tmp_path / "shards" / "train.parquet")
    with pytest.raises(ValueError, match=r"train.parquet: has several columns x; copy it again, or name the columns"):
        made(Parquet, tmp_path / "shards", columns=("x",))


def test_a_row_group_that_fails_to_come_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(Parquet, tmp_path / "shards" / "train.parquet", 10)
    data, left = made(Parquet, tmp_path / "shards"), [2]
    real = data._file

    def stale(number: int) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(116, "Stale file handle")
        return real(number)

    monkeypatch.setattr(shards, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(data, "_file", stale)
    assert data[3][1] == 1
    left[0] = 99
    data._held.clear()
    with pytest.raises(OSError, match="Stale file handle"):
        data[3]
