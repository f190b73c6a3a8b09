"""Samples in shards of parquet, JSON lines and raw tokens: each is read by itself; what is wrong is one line."""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data.jsonlines import JsonLines
from data.parquet import Parquet
from data.sampling.order import Windowed
from data.sharded.sharded import Sharded
from data.tokens import Tokens

PLAIN = {"size": 4, "crop": 1.0, "flip": False, "mean": (0, 0, 0), "std": (1, 1, 1)}
WORDS = ("cat", "ant", "bee")


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (value, value, value)).save(file, "png")
    return file.getvalue()


def written(path: Path, rows: list[dict[str, Any]], group: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def files(root: Path) -> Path:
    """Three of eight rows, in groups of three, and one to evaluate on. Sample n is of grey 10 n."""
    for shard in range(3):
        rows = [{"image": {"bytes": png(10 * n), "path": None}, "label": WORDS[n % 3]} for n in range(8 * shard, 8 * shard + 8)]
        written(root / f"train-{shard}.parquet", rows)
    written(root / "val-0.parquet", [{"image": {"bytes": png(200), "path": "a"}, "label": "bee"}])
    return root


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def made(of: type[Sharded], root: Path, **options: Any) -> Any:
    return of(str(root), **{**({} if of is Tokens else PLAIN), "cache": str(root.parent / "cache"), **options})


def grey(sample: tuple[torch.Tensor, Any]) -> int:
    return round(float(sample[0].mean()) * 255)


def test_a_row_of_many_files_is_read_by_its_number(tmp_path: Path) -> None:
    data, val = made(Parquet, files(tmp_path / "shards")), made(Parquet, tmp_path / "shards", split="val")
    assert (len(data), data.shards.tolist(), data.class_names) == (24, [3, 3, 2] * 3, ("ant", "bee", "cat"))
    for number in (23, 0, 9):
        assert (grey(data[number]), data.class_names[data[number][1]]) == (10 * number, WORDS[number % 3])
    assert (len(val), grey(val[0]), val[0][1]) == (1, 200, 1)
    with pytest.raises(KeyError, match="test"):
        made(Parquet, tmp_path / "shards", split="test")
    pinned = data.prepare()["fingerprint"]
    made(Parquet, tmp_path / "shards", fingerprint=pinned)
    written(tmp_path / "shards" / "val-0.parquet", [{"image": {"bytes": png(200), "path": "a"}, "label": "cat"}])
    with pytest.raises(ValueError, match=r"has other shards now; bring back those the run began with"):
        made(Parquet, tmp_path / "shards", fingerprint=pinned)


def test_an_index_is_mapped_by_each_process_and_not_sent(tmp_path: Path) -> None:
    """Of ten million samples it is hundreds of megabytes."""
    root = tmp_path / "shards"
    written(root / "train.parquet", [{"x": [float(n)], "label": n % 5} for n in range(20_000)], group=500)
    data = made(Parquet, root, columns=("x",))
    assert len(text := pickle.dumps(data)) < 10_000 < data.labels.nbytes
    # A pickle of our own, made in the line above: what a worker is sent.
    assert pickle.loads(text)[777][0].tolist() == [777.0]


def test_a_row_group_is_read_once_in_a_pass_through_its_window(tmp_path: Path) -> None:
    """And each time that one of its rows is asked for, where they are shuffled over all."""
    root = tmp_path / "shards"
    for shard in range(4):
        written(root / f"train-{shard}.parquet", [{"x": [0.5] * 1024, "label": n} for n in range(1000)], group=50)
    data = made(Parquet, root, columns=("x",), memory=4)
    assert 2 * 50 <= data.window < 1000, "as many as half of it holds"
    order = Windowed(data.shards, data.window, 3, 0)[:]
    for index in order:
        data[int(index)]
    assert sorted(order.tolist()) == list(range(4000))
    assert len(data.shards) == 80 <= data.decoded <= 84, "about: where a window ends within one, it may be read again"
    data.decoded = 0
    for index in random.Random(0).sample(range(4000), 200):
        data[index]
    assert data.decoded > 150


def test_columns_may_be_numbers_and_the_label_one_too(tmp_path: Path) -> None:
    rows = [{"a": [1.0, 2.0], "b": 3, "y": 0.25}, {"a": [4.0, 5.0], "b": 6, "y": 2}]
    written(tmp_path / "p" / "train.parquet", [{**row, "y": float(row["y"])} for row in rows])
    lines(tmp_path / "j" / "train.jsonl", rows)
    for data in (
        made(Parquet, tmp_path / "p", columns=("a", "b"), label="y", kind="number"),
        made(JsonLines, tmp_path / "j", columns=("a", "b"), label="y", kind="number"),
    ):
        assert [(sample[0].tolist(), sample[1]) for sample in (data[0], data[1])] == [([1.0, 2.0, 3.0], 0.25), ([4.0, 5.0, 6.0], 2.0)]
        assert data[0][0].dtype == torch.float32
        assert (data.class_names, data.num_classes) == ((), 0)


def test_a_line_has_a_picture_beside_its_shard_or_in_itself(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    lines(root / "a" / "train.jsonl", [{"image": "x/1.png", "label": 1}, "", {"image": base64.b64encode(png(50)).decode(), "label": 0}])
    (root / "a" / "x").mkdir()
    (root / "a" / "x" / "1.png").write_bytes(png(30))
    data = made(JsonLines, root, train="*/train.jsonl")
    assert [(grey(sample), sample[1]) for sample in (data[0], data[1])] == [(30, 1), (50, 0)]
    (root / "a" / "x" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"the line at 0 of train.jsonl names 'x/1.png', which is not there"):
        data[0]


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png"])
def test_a_line_names_no_picture_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.png").write_bytes(png(1))
    lines(tmp_path / "shards" / "train.jsonl", [{"image": name, "label": 0}])
    with pytest.raises(ValueError, match="which is not below the shard's folder"):
        made(JsonLines, tmp_path / "shards")[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"image": "x.png", "lab', "train.jsonl: line 2 is no JSON ("),
        ("[1]", "line 2 is no object but b'[1]\\n'; mend it"),
        ({"image": "x.png"}, "line 2 has no field 'label', but 'image'"),
        ({"image": "x.png", "label": None}, "the line at byte 31 has no label (TypeError: None is neither a whole number nor a word)"),
        ("[" * 9999, "line 2 is no JSON ("),
    ],
)
def test_a_line_that_is_no_sample_is_refused_or_left_out(tmp_path: Path, line: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "shards"
    root.mkdir()
    (root / "x.png").write_bytes(png(1))
    lines(root / "train.jsonl", [{"image": "x.png", "label": 3}, line, {"image": "x.png", "label": 4}])
    with pytest.raises(ValueError, match=r"data.damaged=skip to leave out") as failure:
        made(JsonLines, root)
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)
    data = made(JsonLines, root, damaged="skip")
    assert [data[0][1], data[1][1], len(data)] == [3, 4, 2]
    assert "WARNING: left out: train.jsonl: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (
            [{"image": png(1), "label": 1}],
            {"columns": ("picture",)},
            "train.parquet: has no column picture, but image: binary, label: ",
        ),
        ([{"image": png(1), "label": 1}], {"label": "of"}, "has no column of"),
        (
            [{"image": png(1), "label": None}, {"image": png(1), "label": 1}],
            {},
            "one of the 2 rows of row group 0, which come or go together, has no label (TypeError: None is",
        ),
        ([{"image": png(1), "label": 1}], {"columns": ()}, "data.columns=[]: not possible"),
        ([{"image": png(1), "label": 1}], {"memory": 0}, "data.memory=0: not possible"),
        ([{"image": png(1), "label": 1}], {"kind": "word"}, "data.kind=word: not known; type one of class, number"),
        ([{"image": png(1), "label": "a"}], {"kind": "number"}, "has no label (TypeError: 'a' is no number)"),
    ],
)
def test_what_parquet_lacks_is_one_line(tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], said: str) -> None:
    written(tmp_path / "shards" / "train.parquet", rows)
    with pytest.raises(ValueError, match=r"^data\.") as failure:
        made(Parquet, tmp_path / "shards", **options)
    assert said in str(failure.value)
    assert not [*(tmp_path / "cache").glob("*-v2")], "nothing half-made"


@pytest.mark.parametrize(
    ("row", "columns", "said"),
    [
        ({"image": b"no picture", "label": 1}, ("image",), "row 0 of group 0 of train.parquet is no picture that can be read"),
        ({"image": png(1), "b": 1.0, "label": 1}, ("image", "b"), "has a picture in image, which goes with no other column"),
        ({"image": "text", "label": 1}, ("image",), "has 'text' in image, which is neither a picture nor numbers"),
        ({"image": [float("nan")], "label": 1}, ("image",), "has a number in image that is not finite"),
        ({"image": [[1.0], [1.0, 2.0]], "label": 1}, ("image",), "in image, which is neither a picture nor numbers"),
        ({"image": {"x": png(1), "y": 1.0}, "label": 1}, ("image",), "in image, which is neither a picture nor numbers"),
    ],
)
def test_a_row_that_is_no_sample_is_said_when_it_is_read(tmp_path: Path, row: dict[str, Any], columns: tuple[str, ...], said: str) -> None:
    written(tmp_path / "shards" / "train.parquet", [row])
    with pytest.raises(ValueError, match=r"^data.root=") as failure:
        made(Parquet, tmp_path / "shards", columns=columns)[0]
    assert said in str(failure.value)


def tokens(root: Path) -> Path:
    root.mkdir()
    np.arange(1000, dtype=np.uint16).tofile(root / "train_0.bin")
    np.save(root / "train_1.npy", np.arange(500, dtype=np.int32))
    (root / "val.bin").write_bytes(b"\0" * 1024 + np.arange(100, dtype=np.uint16).tobytes())
    return root


def test_windows_of_tokens_and_what_follows_each(tmp_path: Path) -> None:
    root = tokens(tmp_path / "shards")
    plain = made(Tokens, root, length=64, shift=False, val=None)
    assert (len(plain), plain.shards.tolist()) == (22, [15, 7])
    for index, first in ((0, 0), (14, 14 * 64), (15, 0), (21, 6 * 64)):
        window, following = plain[index]
        assert torch.equal(window, torch.arange(first, first + 64))
        assert torch.equal(following, torch.arange(first + 1, first + 65))
    assert plain.prepare()["kinds"] == 1000
    moved, firsts = made(Tokens, root, length=64, val=None), set[int]()
    for draw in range(300):
        random.seed(draw)
        window, following = moved[21]
        firsts.add(int(window[0]))
        assert torch.equal(following, window + 1)
    assert firsts == set(range(6 * 64, 500 - 64)), "as far as the file goes"
    val = made(Tokens, root, split="val", length=64, train="*.npy", header=1024)
    assert torch.equal(val[0][0], torch.arange(64))
    with pytest.raises(ValueError, match=r"the window at token 384 of train_1.npy has the token 448, where data.kinds=400"):
        made(Tokens, root, length=64, shift=False, val=None, kinds=400)[21]


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        (b"123", {}, "train.bin: has 3 bytes of tokens, which is no multiple of 2"),
        (b"12345678", {}, "no sample in 1 shard(s) has a window of data.length=64 tokens"),
        (b"1" * 400, {"type": "float32"}, "data.type=float32: not known; type one of uint16"),
        (b"1" * 400, {"length": 0}, "data.length=0: not possible"),
    ],
)
def test_what_are_no_tokens_is_one_line(tmp_path: Path, content: bytes, options: dict[str, Any], said: str) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"^data\.") as failure:
        made(Tokens, tmp_path / "shards", **{"length": 64, **options})
    assert said in str(failure.value)


def test_an_npy_that_is_cut_or_no_row_of_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    path = tmp_path / "shards" / "train.npy"
    for array, said in ((np.zeros((9, 9), np.int32), "has int32 of shape"), (np.zeros(99), "has float64 of shape")):
        np.save(path, array)
        with pytest.raises(ValueError, match=said):
            made(Tokens, tmp_path / "shards", length=8)
    np.save(path, np.zeros(500, np.uint16))
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="is cut: it has not the 500 tokens that it says"):
        made(Tokens, tmp_path / "shards", length=8)
    path.write_bytes(b"no npy")
    with pytest.raises(ValueError, match=r"is no .npy that can be read"):
        made(Tokens, tmp_path / "shards", length=8)
