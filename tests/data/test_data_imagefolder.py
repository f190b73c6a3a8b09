"""A folder of one's own pictures: what is in it, what a picture becomes, and what is said of a folder that cannot be learnt from."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.imagefolder import ImageFolder
from data.sampling.leaf import leaf_of
from data.vision.picture import Picture
from data.vision.pictures import Names, pictures

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def drawn(root: Path, counts: dict[str, int], size: tuple[int, int] = (40, 30), suffix: str = ".png") -> Path:
    """So many pictures of each class, in a colour of its own."""
    for (name, count), colour in zip(counts.items(), (RED, GREEN, BLUE), strict=False):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", size, tuple(min(255, each + number) for each in colour)).save(root / name / f"{number:03d}{suffix}")
    return root


def made(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(str(root), **{"size": 8, "cache": str(root.parent / "cache"), **options})


def test_each_folder_is_a_class_and_each_class_is_shared_out(tmp_path: Path) -> None:
    root = drawn(tmp_path / "mine", {"cats": 20, "dogs": 40})
    (root / "cats" / "deep").mkdir()
    Image.new("L", (9, 9), 77).save(root / "cats" / "deep" / "grey.JPG")
    (root / "cats" / "._000.png").write_bytes(b"no picture")
    (root / "cats" / "notes.txt").write_text("no picture")
    (root / ".cache").mkdir()
    parts = {split: made(root, split=split) for split in ("train", "val", "test")}
    assert parts["train"].class_names == ("cats", "dogs")
    assert (parts["train"].num_classes, parts["train"].channels) == (2, 3)
    assert [len(part) for part in parts.values()] == [49, 6, 6]
    chosen = [set(part._places.tolist()) for part in parts.values()]
    assert set.union(*chosen) == set(range(61)), "each picture is in one of them"
    labels = [label for _, label in (parts["val"][place] for place in range(6))]
    assert labels.count(0) == 2
    assert parts["val"].labels.tolist() == labels
    pinned = parts["train"].prepare()
    assert len(made(root, split="train", fingerprint=pinned["fingerprint"])) == 49
    (root / "cats" / "new.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"data.fingerprint=.*has other pictures now \(62 to train on\)"):
        made(root, fingerprint=pinned["fingerprint"])


def test_folders_of_splits_are_the_splits(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    drawn(root / "train", {"a": 10, "b": 10, "c": 10})
    drawn(root / "validation", {"a": 1, "c": 2})
    parts = {split: made(root, split=split, test=0.2) for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [24, 3, 6]
    assert sorted(label for _, label in (parts["val"][place] for place in range(3))) == [0, 2, 2], "as they are numbered in training"
    with pytest.raises(KeyError, match="test"):
        made(root, split="test", test=0.0)
    assert len(made(root, split="train", test=0.0)) == 30
    drawn(root / "test", {"d": 1})
    with pytest.raises(ValueError, match="test/d is a class that train has not; rename it"):
        made(root, split="test")
    (root / "boats").mkdir()
    with pytest.raises(ValueError, match="there are train, validation, test, and boats, which is no split beside them"):
        made(root)


def test_a_picture_is_cut_shrunk_turned_round_and_standardised(tmp_path: Path) -> None:
    root = drawn(tmp_path / "mine", {"cats": 4, "dogs": 4}, (640, 480), ".jpg")
    half = Image.new("RGB", (640, 480), RED)
    half.paste(BLUE, (320, 0, 640, 480))
    half.save(root / "cats" / "000.jpg")
    plain = {"val": 0.0, "test": 0.0, "mean": (0, 0, 0), "std": (1, 1, 1)}
    data = made(root, **plain, crop=1.0, flip=False)
    place = int(np.flatnonzero(data._places == 0)[0])
    pixels, label = data[place]
    assert (tuple(pixels.shape), pixels.dtype, label) == ((3, 8, 8), torch.float32, 0)
    assert pixels[0, :, :3].min() > 0.7
    assert pixels[2, :, 5:].min() > 0.7
    standardised, _ = made(root, **{**plain, "mean": (0.5, 0, 0), "std": (0.25, 1, 1)}, crop=1.0, flip=False)[place]
    assert torch.allclose(standardised[0], (pixels[0] - 0.5) / 0.25)
    changed = made(root, **plain, crop=0.2)
    seen = []
    for seed in (1, 2, 3, 4, 5, 1):
        random.seed(seed)
        seen.append(changed[place][0])
    assert torch.equal(seen[0], seen[5]), "a function of the seed"
    assert not torch.equal(seen[0], seen[1])
    assert {bool(each[2, 4, 0] > 0.7) for each in seen} == {True, False}, "some are turned round"
    assert torch.equal(made(root, split="val", **{**plain, "val": 0.5})[0][0], made(root, split="val", **{**plain, "val": 0.5})[0][0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"root": None}, "data.root=null: no folder; type data.root=/path/to/pictures"),
        ({"root": "/nowhere/at/all"}, "data.root=/nowhere/at/all: no such folder; each class is a folder of its own"),
        ({"size": 0}, "data.size=0"),
        ({"val": 1.0}, "data.val=1.0"),
        ({"val": 0.5, "test": 0.5}, "data.test=0.5: with 0.5 held out beside it"),
        ({"crop": 0.0}, "data.crop=0.0: not possible; type a share of the area above 0"),
        ({"std": (0.0, 1.0, 1.0)}, "data.mean and data.std: not possible"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    root = drawn(tmp_path / "mine", {"a": 1, "b": 1})
    with pytest.raises((ValueError, FileNotFoundError)) as failure:
        ImageFolder(**{"root": str(root), **options})
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_folder_that_cannot_be_learnt_from_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="0 classes with 0 pictures are nothing to learn; each class is a folder of its own"):
        made(tmp_path / "none")
    with pytest.raises(ValueError, match="1 classes with 3 pictures are nothing to learn"):
        made(drawn(tmp_path / "one", {"a": 3}))
    root = drawn(tmp_path / "torn", {"a": 2, "b": 2})
    (root / "a" / "000.png").write_bytes((root / "a" / "000.png").read_bytes()[:60])
    data = made(root, val=0.0, test=0.0)
    with pytest.raises(ValueError, match=r"a/000.png is no picture that can be read \(.*\); take it away"):
        [data[place] for place in range(4)]


def test_a_list_is_made_once_and_again_where_a_directory_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.vision.pictures.SETTLED_SECONDS", 0)
    root, cache = drawn(tmp_path / "mine", {"a": 2, "b": 2}), tmp_path / "cache"
    (root / "a" / "loop").symlink_to(root / "a")
    (root / "b" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    os.mkfifo(root / "b" / "pipe.png")  # reading it would never end
    (root / "b" / "to_pipe.png").symlink_to("pipe.png")
    (root / "itself").symlink_to("itself")
    first = pictures(root, cache)
    assert list(first.names) == ["a/000.png", "a/001.png", "b/000.png", "b/001.png", os.fsdecode(b"b/\xff.png")]
    assert first.names[-1:] == [os.fsdecode(b"b/\xff.png")]
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", lambda place: pytest.fail("it is listed again"))
        again = pictures(root, cache)
    assert (again.classes, list(again.names), again.labels.tolist()) == (first.classes, list(first.names), first.labels.tolist())
    assert again.fingerprint == first.fingerprint
    (root / "a" / "deep").mkdir()
    Image.new("RGB", (4, 4)).save(root / "a" / "deep" / "x.png")
    assert "a/deep/x.png" in list(pictures(root, cache).names)
    (file,) = cache.iterdir()
    whole = json.loads(file.read_text())
    for spoilt in ("", "[]", "{}", json.dumps({**whole, "counts": [99, 1]}), json.dumps({**whole, "classes": ["z", "b"]}), "[" * 100_000):
        file.write_text(spoilt)
        assert len(pictures(root, cache).names) == 6, "what is damaged is listed anew"
    file.chmod(0o666)
    file.write_text(json.dumps({**whole, "names": "../etc/x.png\0" * 6}))
    assert "a/000.png" in list(pictures(root, cache).names), "what another may have written is not read"


def test_a_list_that_may_be_old_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = drawn(tmp_path / "mine", {"a": 2, "b": 2}), tmp_path / "cache"
    pictures(root, cache)
    assert not cache.exists(), "a directory that has just changed may change again within a tick"
    monkeypatch.setattr("data.vision.pictures.SETTLED_SECONDS", 0)
    before = (root / "a").stat()
    pictures(root, cache)
    time.sleep(0.02)  # a tick
    (root / "a" / "later.png").write_bytes(b"")
    os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "a/later.png" in list(pictures(root, cache).names), "as tar and rsync leave it"


def test_folders_may_be_deep(tmp_path: Path) -> None:
    root = drawn(tmp_path / "mine", {"a": 1, "b": 1, f"b/{'d/' * 300}": 1})
    most = sys.getrecursionlimit()
    sys.setrecursionlimit(280)
    try:
        assert len(pictures(root, tmp_path / "cache").names) == 3
    finally:
        sys.setrecursionlimit(most)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({"train/a": 1, "val/a": 1, "masks/a": 1}, "there are train, val, and masks, which is no split beside them; take it"),
        ({"train/a": 1, "val/a": 1, "valid/a": 1}, "there are train, val, valid, and valid, which"),
    ],
)
def test_what_lies_beside_splits_is_no_class(tmp_path: Path, folders: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(drawn(tmp_path / "mine", folders))


def test_splits_may_be_written_in_capitals_and_train_may_be_a_class(tmp_path: Path) -> None:
    root = drawn(tmp_path / "mine", {"Train/a": 3, "Train/b": 3, "Test/a": 2})
    data = made(root, val=0.0)
    assert (data.class_names, len(data), len(made(root, split="test"))) == (("a", "b"), 6, 2)
    assert made(drawn(tmp_path / "traffic", {"bus": 2, "train": 2})).class_names == ("bus", "train")


def test_a_run_goes_on_with_no_other_pictures_to_evaluate_on(tmp_path: Path) -> None:
    root = drawn(tmp_path / "mine", {"train/a": 1, "train/b": 1, "val/a": 1})
    pinned = made(root).prepare()["fingerprint"]
    made(root, fingerprint=pinned)
    drawn(root, {"val/b": 1})
    with pytest.raises(ValueError, match="other pictures now"):
        made(root, fingerprint=pinned)


def test_white_is_white_in_any_file(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Pillow takes all that is above 255 for white: a picture of 16 bits would be white all over."""
    picture = Picture(4, 1.0, False, (0, 0, 0), (1, 1, 1))
    grey = np.full((9, 9), 0x8000, np.uint16)
    Image.fromarray(grey).save(tmp_path / "16.png")
    Image.fromarray(grey).save(tmp_path / "16.tif")
    (tmp_path / "16.pgm").write_bytes(b"P5 9 9 65535\n" + grey.astype(">u2").tobytes())
    for name in ("16.png", "16.tif", "16.pgm"):
        assert torch.allclose(picture.of(tmp_path / name), torch.tensor(128 / 255)), name
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "32.tif")
    with pytest.raises(ValueError, match=r"no picture that can be read \(pixels of mode F, not of 8 or 16 bits\)"):
        picture.of(tmp_path / "32.tif")
    assert leaf_of(Image.fromarray(grey))[0].unique().tolist() == [128], "of a set of one's own, too"
    Image.new("P", (9, 9), 1).save(tmp_path / "clear.png", transparency=bytes([0, 128]))
    picture.of(tmp_path / "clear.png")
    assert not recwarn.list


def test_names_are_what_they_were() -> None:
    names = Names.of(["a/b.png", "", "c\n.png", "ä/é.png"])
    assert [*names] == ["a/b.png", "", "c\n.png", "ä/é.png"]
    assert (len(names), names[-1], len(Names.of([]))) == (4, "ä/é.png", 0)
    with pytest.raises(IndexError):
        names[4]


def _with_doubles(root: Path) -> Path:
    """In train a picture twice and once more as another class; in val one that is in train."""
    for split, count in (("train", 6), ("val", 4)):
        drawn(root / split, {"cats": count, "dogs": count})
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(path.read_bytes() + b" ")
    cat = (root / "train/cats/000.png").read_bytes()
    for again in ("train/cats/again.png", "train/dogs/again.png", "val/cats/again.png"):
        (root / again).write_bytes(cat)
    return root


def test_files_that_are_there_twice_are_kept_left_out_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _with_doubles(tmp_path / "mine")
    kept, dropped = made(root), made(root, duplicates="drop", test=0)
    assert (len(kept._pictures.names), len(dropped), len(made(root, split="val", duplicates="drop", test=0))) == (14, 12, 8)
    names = [dropped._pictures.names[place] for place in dropped._places]
    assert "cats/000.png" in names
    assert not any("again" in name for name in names)
    capsys.readouterr()
    pinned = dropped.prepare()
    said = capsys.readouterr().err
    assert "data: 3 duplicates are left out (data.duplicates=drop), 1 of them in a part before: train/cats/again.png (train) is" in said
    assert "WARNING: 1 duplicates have another label than the first" in said
    assert pinned["fingerprint"] != kept.prepare()["fingerprint"]
    assert len(made(root, duplicates="drop", test=0, fingerprint=pinned["fingerprint"])) == 12
    shared = made(root, duplicates="drop", test=0.2)
    assert len(shared) + len(made(root, split="test", duplicates="drop", test=0.2)) == 12, "what is held out is of what stays"
    with pytest.raises(
        ValueError, match=r"^data\.duplicates=refuse: train/cats/again\.png \(train\) is train/cats/000\.png \(train\) again"
    ):
        made(root, duplicates="refuse")
    (root / "val/cats/again.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"^data\.fingerprint="):
        made(root, duplicates="drop", fingerprint=pinned["fingerprint"])
    with pytest.raises(ValueError, match=r"^data\.duplicates=no: not known; type one of keep, drop, refuse$"):
        made(root, duplicates="no")


def test_pictures_that_lie_in_no_class_are_counted_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn(tmp_path / "mine", {"cats": 6, "dogs": 6})
    made(root).prepare()
    assert capsys.readouterr().err == ""
    (root / "stray.JPG").write_bytes(b"x")
    (root / "notes.txt").write_text("no picture")
    made(root).prepare()
    said = capsys.readouterr().err
    assert said == f"data: 1 pictures lie in no class's folder and are left out (data.unlabelled=drop), first {root / 'stray.JPG'}\n"
    with pytest.raises(ValueError, match=r"^data\.unlabelled=refuse: 1 pictures lie in no class's folder, first .*stray\.JPG; move them"):
        made(root, unlabelled="refuse").prepare()


def test_odd_pictures_are_pictures_and_a_directory_is_none(tmp_path: Path) -> None:
    """CMYK, the first of several frames, a name in any script; and what a camera noted of how it was held is not applied, as torchvision's
    ImageFolder does not."""
    root = drawn(tmp_path / "mine", {"äöü": 3, "犬": 3})
    (root / "äöü" / "x.jpg").mkdir()
    turned = Image.new("RGB", (12, 6), RED)
    turned.paste(BLUE, (6, 0, 12, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned.save(root / "äöü" / "turned.png", exif=exif)
    Image.new("CMYK", (9, 9), (0, 255, 255, 0)).save(root / "犬" / "ink.jpg")
    frames = [Image.new("RGB", (9, 9), colour) for colour in (GREEN, BLUE)]
    frames[0].save(root / "犬" / "moving.gif", save_all=True, append_images=frames[1:])
    data = made(root, val=0, test=0, crop=1.0, flip=False, mean=(0, 0, 0), std=(1, 1, 1))
    assert (data.class_names, len(data)) == (("äöü", "犬"), 9)
    shown = {data._pictures.names[place]: data[at][0] for at, place in enumerate(data._places.tolist())}
    assert shown["äöü/turned.png"][0, 4, 0] > 0.7, "red is left"
    assert shown["äöü/turned.png"][2, 4, 7] > 0.7, "blue is right"
    assert shown["犬/ink.jpg"][0].mean() > 0.8
    assert shown["犬/moving.gif"][1].mean() == pytest.approx(GREEN[1] / 255, abs=0.02)
