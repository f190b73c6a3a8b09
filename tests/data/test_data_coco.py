"""Sets with annotations as COCO has them: the same samples as in VOC layout, and the one line of each fault."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawn_voc
import pytest
import torch

from data.coco import COCO
from data.voc import VOC

JSON = "annotations/instances_train2017.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return drawn_voc.write_coco(tmp_path / "mine", 6)


@pytest.fixture
def coco(root: Path, tmp_path: Path) -> Callable[..., COCO]:
    given = {"root": str(root), "val_json": None, "size": 64, "cache": str(tmp_path / "cache"), "validation": 0, "test": 0}
    return lambda **options: COCO(**{**given, **options})


@pytest.fixture
def change(root: Path) -> Callable[[Callable[[Any], object]], None]:
    def call(how: Callable[[Any], object]) -> None:
        content = json.loads((root / JSON).read_text())
        how(content)
        (root / JSON).write_text(json.dumps(content))

    return call


def test_both_formats_have_the_same_samples(coco: Callable[..., COCO], tmp_path: Path) -> None:
    voc = VOC(str(drawn_voc.write(tmp_path / "voc", 6)), size=64, cache=str(tmp_path / "cache"), validation=0, test=0)
    one, other = coco().part("train", "cpu"), voc.part("train", "cpu")
    assert one is not None
    assert other is not None
    (images, targets), (theirs, of_them) = (source.batch(torch.arange(6)) for source in (one, other))
    assert torch.equal(images, theirs)
    assert torch.equal(targets["boxes"], of_them["boxes"])
    # categories go by their ids: 3 is the square, 7 the disc
    swapped = torch.where(targets["labels"] < 0, -1, 1 - targets["labels"])
    assert torch.equal(swapped, of_them["labels"])
    assert coco().class_names == ("square", "disc")


def test_a_crowd_is_ignored(coco: Callable[..., COCO], change: Callable[[Callable[[Any], object]], None]) -> None:
    change(lambda content: content["annotations"][0].update(iscrowd=1))
    source = coco().part("train", "cpu")
    assert source is not None
    assert source.batch(torch.arange(6))[1]["ignored"].sum() == 1


@pytest.mark.parametrize("folder", ["train2017", "images/train2017", "images", "annotations", "."])
def test_pictures_are_where_such_sets_have_them(folder: str, tmp_path: Path) -> None:
    root = drawn_voc.write_coco(tmp_path / "mine", 3, folder=folder)
    data = COCO(str(root), val_json=None, size=32, cache=str(tmp_path / "cache"))
    data.prepare()
    assert data.num_classes == 2


def test_each_part_has_its_file(coco: Callable[..., COCO], root: Path) -> None:
    drawn_voc.write_coco(root, 2, "val2017", "val2017")
    data = coco(val_json="annotations/instances_val2017.json")
    val, train = data.part("val", "cpu"), data.part("train", "cpu")
    assert val is not None
    assert train is not None
    assert (len(train.places), len(val.places)) == (6, 2)
    assert data.part("test", "cpu") is None


SAMPLES: dict[str, tuple[Callable[[Any], object], str]] = {
    "outside": (lambda c: c["annotations"][0].update(bbox=[90, 1, 20, 20]), r"image 100: the box .* goes beyond the picture"),
    "flat": (lambda c: c["annotations"][0].update(bbox=[9, 9, 0, 20]), r"image 100: the box .* has no area"),
    "infinite": (lambda c: c["annotations"][0].update(bbox=[9, 9, 1e999, 20]), r"annotation 0: the box .* an edge that is no number"),
    "three numbers": (lambda c: c["annotations"][0].update(bbox=[9, 9, 3]), r"annotation 0 has no bbox of four numbers"),
    "no category": (lambda c: c["annotations"][0].update(category_id=5), r"annotation 0 is of the category 5, which is not there"),
    "no image": (lambda c: c["annotations"][0].update(image_id=5), r"annotation 0 is of the image 5, which is not there"),
    "elsewhere": (
        lambda c: c["images"][1].update(file_name="../../secret.png"),
        r"image 101 has the file_name '\.\./\.\./secret\.png', which",
    ),
    "missing": (lambda c: c["images"][1].update(file_name="q.png"), r"image 101 is of q\.png, and there is no"),
    "no name": (lambda c: c["images"][1].pop("file_name"), r"image 101 has no file_name"),
    "a name that cannot be": (lambda c: c["images"][1].update(file_name="a\0.png"), r"image 101 has the file_name 'a\\x00.png', which no"),
    "a long name": (lambda c: c["images"][0].update(file_name="x" * 5000), r"image 100 has the file_name 'x+, which no file can have"),
    "the first is missing": (lambda c: c["images"][0].update(file_name="q.png"), r"image 100 is of q\.png, and there is no"),
    "digits": (lambda c: c["annotations"][0].update(bbox=[9, 9, 10**400, 3]), r"annotation 0: the box .* an edge that is no number"),
    "a truth": (lambda c: c["annotations"][0].update(category_id=True), r"annotation 0 is of the category True"),
    "a crowd in words": (lambda c: c["annotations"][0].update(iscrowd="0"), r"annotation 0 has the iscrowd '0', which is 0 or 1"),
    "another size": (lambda c: c["images"][1].update(width=5), r"image 101 is of a picture of 5x64, and p1\.png has 96x64"),
}


@pytest.mark.parametrize("fault", SAMPLES)
def test_a_fault_of_a_sample_is_one_line_or_left_out(fault: str, coco: Callable[..., COCO], change: Any) -> None:
    how, why = SAMPLES[fault]
    change(how)
    with pytest.raises(ValueError, match=rf"^data\.root=\S+: {JSON} {why}.*data\.max_corrupt=10$") as refused:
        coco(outside="refuse").prepare()
    assert "\n" not in str(refused.value)
    source = coco(outside="refuse", max_corrupt=1).part("train", "cpu")
    assert source is not None
    assert len(source.places) == 5 + (fault == "no image")


FILES: dict[str, tuple[str, str]] = {
    "torn": ('{"images": [', r"is not readable as JSON"),
    "deep": ("[" * 200_000, r"is not readable as JSON"),
    "no object": ("[]", r"has no list of objects `images`"),
    "no list": ('{"images": {}, "annotations": [], "categories": []}', r"has no list of objects `images`"),
    "numbers": ('{"images": [], "annotations": [1], "categories": []}', r"has no list of objects `annotations`"),
    "an id that is a list": ('{"images": [{"id": []}], "annotations": [], "categories": []}', r"has an id that is no number"),
}


@pytest.mark.parametrize("fault", FILES)
def test_a_file_that_is_none_is_one_line(fault: str, coco: Callable[..., COCO], root: Path) -> None:
    text, why = FILES[fault]
    (root / JSON).write_text(text)
    with pytest.raises(ValueError, match=rf"^data\.root=\S+: {JSON} {why}"):
        coco(max_corrupt=9).prepare()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda c: c["categories"][0].update(id=3), "has a category with the id 3"),
        (lambda c: c["categories"][0].update(name=None), "has a category with the id 7 and the name None"),
        (lambda c: c["images"][0].update(id=101), "has two images with the id 101"),
        (lambda c: c["images"][0].pop("id"), "has an image without an id"),
        (lambda c: c.update(images=[]), "has no image;"),
        (lambda c: c["categories"][0].update(name="\ud800"), r"has a category with the id 7 and the name '\\ud800'"),
    ],
)
def test_a_file_that_contradicts_itself_is_one_line(how: Any, why: str, coco: Callable[..., COCO], change: Any) -> None:
    change(how)
    with pytest.raises(ValueError, match=why):
        coco(max_corrupt=9).prepare()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"train_json": "a.json"}, rf"data\.train_json=a\.json: there is no such file in .*; type data\.train_json= one of {JSON}$"),
        ({"val_json": "b.json"}, r"data\.val_json=b\.json: .*, or null to hold samples out$"),
        ({"images": "pictures"}, r"data\.images=pictures: there is no directory"),
    ],
)
def test_a_file_that_is_not_there_is_one_line(options: dict[str, Any], why: str, coco: Callable[..., COCO]) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{why}"):
        coco(**options).prepare()


@pytest.mark.timeout(20)
def test_a_pipe_is_no_picture(coco: Callable[..., COCO], root: Path) -> None:
    (root / "train2017" / "p1.png").unlink()
    os.mkfifo(root / "train2017" / "p1.png")
    with pytest.raises(ValueError, match=r"^data\.root=\S+: train2017/p1\.png is no file; replace it"):
        coco().prepare()


def test_pictures_that_are_nowhere_are_one_line(coco: Callable[..., COCO], root: Path) -> None:
    (root / "train2017").rename(root / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"p0\.png, the first picture of .*, is in no usual directory; type data\.images="):
        coco().prepare()
    coco(images="elsewhere").prepare()
