"""Shards of pictures: which samples there are, one read of each, and what is said of a shard that is damaged."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data.webdataset import WebDataset


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (value, value, value)).save(file, "png")
    return file.getvalue()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def sharded(root: Path, labels: Any = str) -> Path:
    """Three shards of four samples to train on, one of two to evaluate on. Sample n is of grey 10 n."""
    for shard in range(3):
        files: dict[str, bytes] = {}
        for each in range(4):
            number = 4 * shard + each
            files |= {
                f"s/{number:03d}.jpg.txt": b"no",
                f"s/{number:03d}.png": png(10 * number),
                f"s/{number:03d}.cls": labels(number % 3).encode(),
            }
        packed(root / f"train-{shard}.tar", files)
    packed(root / "val-0.tar", {"a.cls": labels(2).encode(), "a.png": png(200), "b.png": png(210), "b.cls": labels(0).encode()})
    return root


def made(root: Path, **options: Any) -> WebDataset:
    plain = {"size": 4, "crop": 1.0, "flip": False, "mean": (0, 0, 0), "std": (1, 1, 1), "cache": str(root.parent / "cache")}
    return WebDataset(str(root), **{**plain, **options})


def test_each_sample_is_one_read(tmp_path: Path) -> None:
    root = sharded(tmp_path / "shards")
    data, val = made(root), made(root, split="val")
    assert (len(data), data.shards.tolist(), data.num_classes, data.class_names) == (12, [4, 4, 4], 3, ())
    for number in (11, 0, 5):
        pixels, label = data[number]
        assert (tuple(pixels.shape), label) == ((3, 4, 4), number % 3)
        assert torch.allclose(pixels, torch.full_like(pixels, 10 * number / 255))
    assert [label for _, label in (val[0], val[1])] == [2, 0]
    with pytest.raises(KeyError, match="test"):
        made(root, split="test")
    with pytest.raises(KeyError, match="val"):
        made(root, split="val", val=None)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[3][0], data[3][0]), "a worker has files of its own"
    pinned = data.prepare()
    assert len(made(root, fingerprint=pinned["fingerprint"])) == 12
    packed(root / "train-9.tar", {"z.png": png(1), "z.cls": b"0"})
    with pytest.raises(ValueError, match=r"data.fingerprint=.*has other shards now"):
        made(root, fingerprint=pinned["fingerprint"])


def test_labels_may_be_words_and_may_be_in_json(tmp_path: Path) -> None:
    words = ("cat", "ant", "bee")
    data = made(sharded(tmp_path / "shards", lambda number: words[number]))
    assert (data.class_names, data.num_classes) == (("ant", "bee", "cat"), 3)
    assert [data.class_names[data[number][1]] for number in range(3)] == ["cat", "ant", "bee"]
    assert data.labels[:3].tolist() == [2, 0, 1]
    assert made(tmp_path / "shards", split="val")[0][1] == 1
    packed(tmp_path / "json" / "train.tar", {"a.json": json.dumps({"label": 7}).encode(), "a.webp.png": b"", "a.png": png(1)})
    assert made(tmp_path / "json", label="json:label")[0][1] == 7


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ({"a.png": png(1)}, {}, "train.tar: a has png; it needs a picture and a .cls, neither a link nor sparse, or data.damaged=skip"),
        ({"a.png": png(1), "a.json": b"[1"}, {"label": "json:label"}, "train.tar: a.json has no label (JSONDecodeError"),
        (
            {"a.png": png(1), "a.json": b"{}"},
            {"label": "json:label"},
            "a.json has no label (KeyError: 'label'); type data.label=",
        ),
        ({"a.png": png(1), "a.json": b"[" * 9999}, {"label": "json:label"}, "a.json has no label (RecursionError"),
        ({"a.png": png(1), "a.json": b'{"label": null}'}, {"label": "json:label"}, "None is neither a whole number nor a word"),
        ({"a.png": png(1), "a.cls": b" "}, {}, "a.cls has no label (ValueError: it is empty)"),
        ({"a.png": png(1), "a.cls": b"9" * 30}, {}, f"a.cls has no label (ValueError: {'9' * 30} is too large)"),
        ({"a.png": png(1), "a.PNG": png(2), "a.cls": b"1"}, {}, "train.tar: a.png is there twice; give each sample a name of its own"),
        ({"a.png": png(1), "a.cls": b"1"}, {"train": "*.tar", "val": "t*"}, "data.val=t*: train.tar is one of data.train=*.tar too; type"),
        ({"a.png": png(1), "a.cls": b"1"}, {"train": "../*.tar"}, "data.train=../*.tar: it is not below data.root="),
        ({"a.png": png(1), "a.cls": b"1"}, {"test": "/a/*.tar"}, "data.test=/a/*.tar: it is not below data.root="),
        ({}, {}, "no sample in 1 shard(s) has a .cls and a picture (jpg, jpeg, png, webp)"),
        ({"a.png": png(1), "a.cls": b"1"}, {"train": "part-*"}, "no file there is a part-*; type data.train="),
        ({"a.png": png(1), "a.cls": b"1"}, {"damaged": "drop"}, "data.damaged=drop: not known; type one of refuse, skip"),
        ({"a.png": png(1), "a.cls": b"1"}, {"size": 0}, "data.size=0: not possible"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(tmp_path: Path, files: dict[str, bytes], options: dict[str, Any], said: str) -> None:
    packed(tmp_path / "shards" / "train.tar", files)
    with pytest.raises((ValueError, FileNotFoundError)) as failure:
        made(tmp_path / "shards", **options)
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)
    assert not [*(tmp_path / "cache").glob("*-v2")], "nothing half-made"


@pytest.mark.parametrize("cut", ["in a picture", "in a header", "before the end", "in nothing"])
def test_a_shard_that_is_cut_is_refused_or_what_is_whole_of_it_is_taken(
    tmp_path: Path, cut: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sharded(tmp_path / "shards")
    path = root / "train-1.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        entries = {entry.name: entry for entry in tar}
    at = {
        "in a picture": entries["s/006.png"].offset_data + 20,
        "in a header": entries["s/006.jpg.txt"].offset + 100,
        "before the end": entries["s/007.cls"].offset_data + 512,
        "in nothing": 0,
    }
    path.write_bytes(whole[: at[cut]])
    with pytest.raises(ValueError, match=r"train-1.tar: it (ends within|is no tar|has no end).*; copy it again, or data.damaged=skip"):
        made(root)
    data = made(root, damaged="skip")
    assert data.shards.tolist() == [4, {"in a picture": 2, "in a header": 2, "before the end": 4, "in nothing": 0}[cut], 4]
    assert data[len(data) - 1][1] == 11 % 3
    assert "WARNING: left out: train-1.tar" in capsys.readouterr().err


def test_shards_of_the_same_names_and_sizes_are_others(tmp_path: Path) -> None:
    """Tars are padded: of labels that were mended their sizes say nothing."""
    first, second = (sharded(tmp_path / name, lambda number, to=to: str(to[number])) for name, to in (("a", "012"), ("b", "210")))
    assert [path.stat().st_size for path in first.iterdir()] == [path.stat().st_size for path in second.iterdir()]
    pinned = made(first).prepare()["fingerprint"]
    assert (made(first)[0][1], made(second)[0][1]) == (0, 2)
    for path in second.iterdir():
        path.replace(first / path.name)
    assert made(first)[0][1] == 2, "it is looked into again"
    with pytest.raises(ValueError, match=r"other shards now; bring back those the run began with"):
        made(first, fingerprint=pinned)


def test_a_run_goes_on_with_no_other_shards_to_evaluate_on(tmp_path: Path) -> None:
    root = sharded(tmp_path / "shards")
    pinned = made(root).prepare()["fingerprint"]
    made(root, fingerprint=pinned)
    packed(root / "val-0.tar", {"a.cls": b"2", "a.png": png(200)})
    with pytest.raises(ValueError, match=r"other shards now"):
        made(root, fingerprint=pinned)
    packed(root / "val-0.tar", {"a.cls": b"3", "a.png": png(200)})
    with pytest.raises(ValueError, match=r"label 3 is in no training shard, which have 0 to 2"):
        made(root, split="val")


def test_shards_may_lie_in_folders(tmp_path: Path) -> None:
    """Of the same name, too."""
    for folder, grey in (("a", 10), ("b", 20)):
        packed(tmp_path / "shards" / folder / "000.tar", {"x.png": png(grey), "x.cls": b"1"})
    (tmp_path / "shards" / "c" / "000.tar").mkdir(parents=True)
    data = made(tmp_path / "shards", train="*/*.tar")
    assert [round(255 * data[number][0].max().item()) for number in range(len(data))] == [10, 20]


def test_what_tarfile_passes_over_is_said(tmp_path: Path) -> None:
    root = sharded(tmp_path / "shards")
    whole = (root / "train-0.tar").read_bytes()
    with tarfile.open(root / "train-0.tar") as tar:
        header = next(entry.offset for entry in tar if entry.name == "s/002.png")
    sparse = tarfile.TarInfo("x.png")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 0
    for content, said in (
        (whole[:header] + b"\xff" * 200 + whole[header + 200 :], f"its header at byte {header} is damaged; copy it again"),
        (whole + whole, "something lies behind its end; unpack tars that were joined"),
        (gzip.compress(whole), "it is compressed with gzip, so that no sample can be read without all before it; unpack it"),
    ):
        (root / "train-0.tar").write_bytes(content)
        with pytest.raises(ValueError, match=f"train-0.tar: {said}"):
            made(root)
    (root / "train-0.tar").write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + whole)
    assert len(made(root)) == 12, "a file in pieces is none that can be read in one"


def test_a_shard_that_shrinks_while_it_is_used_is_said(tmp_path: Path) -> None:
    root = sharded(tmp_path / "shards")
    data = made(root)
    (root / "train-2.tar").write_bytes((root / "train-2.tar").read_bytes()[:700])
    with pytest.raises(ValueError, match=r"the picture at \d+ of train-2.tar is cut: 0 of \d+ bytes"):
        data[11]
    with tarfile.open(root / "train-0.tar") as tar:
        offset = next(entry.offset_data for entry in tar if entry.name == "s/000.png")
    with (root / "train-0.tar").open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 30)
    with pytest.raises(ValueError, match=rf"the picture at {offset} of train-0.tar is no picture that can be read"):
        made(root, train="train-0.tar")[0]
