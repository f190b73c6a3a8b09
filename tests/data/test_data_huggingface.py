"""Data sets of Hugging Face's package: from its directories and files; without a network."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data.huggingface import HuggingFace

datasets = pytest.importorskip("datasets", reason="datasets is not installed")


@pytest.fixture(autouse=True)
def _apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("hf")))


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 7), (value, value, value)).save(file, "png")
    return file.getvalue()


def pictures(count: int, first: int = 0) -> Any:
    features = datasets.Features(
        {"id": datasets.Value("int64"), "img": datasets.Image(), "kind": datasets.ClassLabel(names=["ant", "bee"])}
    )
    rows = {"id": [*range(count)], "img": [{"bytes": png(10 * (first + each)), "path": None} for each in range(count)]}
    return datasets.Dataset.from_dict({**rows, "kind": [each % 2 for each in range(count)]}, features=features)


def made(path: Path, **options: Any) -> HuggingFace:
    plain = {"size": 4, "crop": 1.0, "flip": False, "mean": (0, 0, 0), "std": (1, 1, 1)}
    return HuggingFace(str(path), **{**plain, **options})


def test_pictures_and_labels_of_a_directory_with_splits(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": pictures(6), "validation": pictures(2, 20)}).save_to_disk(tmp_path / "set")
    data, val = made(tmp_path / "set"), made(tmp_path / "set", split="val")
    assert (len(data), len(val), data.class_names, data.num_classes) == (6, 2, ("ant", "bee"), 2)
    assert data.labels == [0, 1] * 3
    pixels, label = data[3]
    assert (tuple(pixels.shape), label) == ((3, 4, 4), 1)
    assert torch.allclose(pixels, torch.full_like(pixels, 30 / 255))
    with pytest.raises(KeyError, match="test"):
        made(tmp_path / "set", split="test")
    with pytest.raises(KeyError, match="val"):
        made(tmp_path / "set", split="val", val=None)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[5][0], data[5][0])
    pinned = data.prepare()
    assert pinned["path"] == str(tmp_path / "set")
    assert len(made(tmp_path / "set", fingerprint=pinned["fingerprint"])) == 6
    datasets.DatasetDict({"train": pictures(5)}).save_to_disk(tmp_path / "other")
    with pytest.raises(ValueError, match=r"data.fingerprint=.*has other columns or rows now"):
        made(tmp_path / "other", fingerprint=pinned["fingerprint"])


def test_a_single_set_and_files_are_for_training_unless_they_are_cut(tmp_path: Path) -> None:
    pictures(4).save_to_disk(tmp_path / "one")
    assert len(made(tmp_path / "one")) == 4
    with pytest.raises(KeyError, match="val"):
        made(tmp_path / "one", split="val")
    pictures(10).to_parquet(tmp_path / "all.parquet")
    cut = {"train": "train[:80%]", "val": "train[80%:]", "test": None}
    assert [len(made(tmp_path / "all.parquet", split=split, **cut)) for split in ("train", "val")] == [8, 2]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"x": [each, 1.5], "y": each * 2.0}) + "\n" for each in range(3)))
    assert made(tmp_path / "rows.jsonl", columns=["x", "y"], test=None)[2] == ([2.0, 1.5], 4.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": None}, "data.path=null: no data set"),
        ({"path": "/nowhere/at/all"}, "data.path=/nowhere/at/all: "),
        ({"columns": ["imgs"]}, "data.columns: {path} has no 'imgs', it has id, img, kind; did you mean img?"),
        ({"train": "training"}, "type another data.path, data.name or data.train"),
        ({"size": 0}, "data.size=0: not possible"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    datasets.DatasetDict({"train": pictures(2)}).save_to_disk(tmp_path / "set")
    with pytest.raises(ValueError, match=r"^data\.") as failure:
        HuggingFace(**{"path": str(tmp_path / "set"), **options})
    assert said.format(path=tmp_path / "set") in str(failure.value)
    assert "\n" not in str(failure.value)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y\n1,2\n")
    with pytest.raises(
        ValueError, match=r"has no column of pictures and one of class labels; type data.columns=\[…\] with some of x \(Value\), y"
    ):
        made(tmp_path / "rows.csv", test=None)
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    torn = datasets.Dataset.from_dict({"img": [{"bytes": png(3)[:40], "path": None}], "kind": [0]}, features=features)
    torn.save_to_disk(tmp_path / "torn")
    with pytest.raises(ValueError, match=r"torn: img of row 0 is no picture that can be read"):
        made(tmp_path / "torn")[0]


def test_what_says_nothing_of_a_place_is_refused(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": pictures(6)}).save_to_disk(tmp_path / "set")
    pictures(6).to_parquet(str(tmp_path / "a.parquet"))
    for place, what in (("set", "a directory of save_to_disk"), ("a.parquet", "a file")):
        for key in ("name", "revision"):
            with pytest.raises(ValueError, match=rf"^data\.{key}=x: .*{place} is {what}, which has none; type data\.{key}=null$"):
                made(tmp_path / place, **{key: "x"})
    (tmp_path / "dir").mkdir()
    (tmp_path / "a.parquet").rename(tmp_path / "dir" / "train.parquet")
    assert len(made(tmp_path / "dir")) == 6
    with pytest.raises(ValueError, match=r"^data\.revision=x: .*dir is a directory, which has none; type data\.revision=null$"):
        made(tmp_path / "dir", revision="x")


def _damaged(count: int, first: int, bad: dict[int, Any]) -> Any:
    rows = pictures(count, first)
    told = [bad.get(place, {"bytes": png(first + place), "path": None}) for place in range(count)]
    return datasets.Dataset.from_dict({"id": rows["id"], "img": told, "kind": rows["kind"]}, features=rows.features)


def test_rows_without_a_picture_that_can_be_read_stop_it_or_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {1: {"bytes": b"torn", "path": None}, 4: None, 6: {"bytes": png(3)[:40], "path": None}}
    datasets.DatasetDict({"train": _damaged(8, 0, bad), "validation": _damaged(4, 9, {0: {"bytes": b"", "path": None}})}).save_to_disk(
        tmp_path / "set"
    )
    options: dict[str, Any] = {"cache": str(tmp_path / "cache"), "test": None}
    with pytest.raises(ValueError, match=r"img of train row \d .*; take it away, or leave such rows out: data\.max_corrupt=10$"):
        made(tmp_path / "set", **options).prepare()
    with pytest.raises(
        ValueError, match=r"img of train row 6 is no picture .*; 2 samples before it were left out, which is data\.max_corrupt$"
    ):
        made(tmp_path / "set", max_corrupt=2, **options)
    capsys.readouterr()
    data, val = (made(tmp_path / "set", split=split, max_corrupt=4, **options) for split in ("train", "val"))
    pinned = data.prepare()
    assert "WARNING: 4 samples cannot be read and are left out (data.max_corrupt=4)" in capsys.readouterr().err
    assert (len(data), data.labels, len(val)) == (5, [0, 0, 1, 1, 1], 3)
    assert [round(float(data[place][0][0, 0, 0]) * 255) for place in range(5)] == [0, 2, 3, 5, 7]
    assert [data[place][1] for place in range(5)] == data.labels
    made(tmp_path / "set", max_corrupt=4, **options, fingerprint=pinned["fingerprint"])
    with pytest.raises(ValueError, match=r"^data\.fingerprint="):
        made(tmp_path / "set", **options, fingerprint=pinned["fingerprint"])
