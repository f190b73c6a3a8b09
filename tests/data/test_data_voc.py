"""Sets in VOC layout: what is read, how it is shared out, and the one line of each fault."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drawn_voc
import numpy as np
import pytest
import torch
from PIL import Image

from data.coco import COCO
from data.voc import VOC


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return drawn_voc.write(tmp_path / "mine", 6)


@pytest.fixture
def voc(root: Path, tmp_path: Path) -> Callable[..., VOC]:
    return lambda **options: VOC(**{"root": str(root), "size": 64, "cache": str(tmp_path / "cache"), "max_corrupt": 0, **options})


def write(root: Path, name: str, text: str) -> None:
    (root / "Annotations" / f"{name}.xml").write_text(text)


def names_in(data: VOC | COCO, part: str) -> int:
    source = data.part(part, "cpu")
    return 0 if source is None else len(source.places)


def test_pictures_and_boxes_come_to_one_size(voc: Callable[..., VOC], root: Path) -> None:
    write(root, "p0", drawn_voc.xml("p0", (96, 64), [("square", (24, 12, 96, 60)), ("disc", (0, 0, 9.5, 6))]))
    write(root, "p1", drawn_voc.xml("p1", (96, 64), [("disc", (0, 0, 9, 6))] * 3))
    data = voc(validation=0, test=0, seed=0)
    assert data.prepare()["root"] == str(root)
    assert data.class_names == ("disc", "square")
    assert data.num_classes == 2
    source = data.part("train", "cpu")
    assert source is not None
    images, targets = source.batch(torch.tensor([0]))
    assert images.shape == (1, 3, 64, 64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert targets["labels"][0].tolist() == [1, 0, -1]
    expected = torch.tensor([[24, 12, 96, 60], [0, 0, 9.5, 6], [0, 0, 0, 0]]) * 64 / 96
    torch.testing.assert_close(targets["boxes"][0], expected)
    assert images[0, :, 43:].abs().max() < 0.02, "below the picture there is the mean"
    assert images[0, :, :42].std() > 0.1


def test_the_classes_are_those_asked_for_in_their_order(voc: Callable[..., VOC]) -> None:
    data = voc(classes=["square", "cat", "disc"])
    data.prepare()
    assert data.class_names == ("square", "cat", "disc")
    assert VOC(str(data.root), size=64, cache=str(data.cache), fingerprint=data.fingerprint).class_names == ("disc", "square")


def test_what_else_lies_there_is_nothing(voc: Callable[..., VOC], root: Path) -> None:
    for name in ("JPEGImages/Thumbs.db", "JPEGImages/.p9.png", "Annotations/labels.csv"):
        (root / name).write_text("not ours")
    data = voc(validation=0, test=0)
    data.prepare()
    assert names_in(data, "train") == 6


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        (None, (4, 1, 1)),
        ({"train": [0, 1, 2], "val": [3], "test": [4, 5]}, (3, 1, 2)),
        ({"trainval": [0, 1, 2, 3], "val": [3], "test": [4, 5]}, (3, 1, 2)),
        ({"trainval": [0, 1, 2, 3, 4, 5]}, (4, 1, 1)),
        ({"train": [0, 1, 2, 3], "val": [4, 5]}, (3, 2, 1)),
    ],
)
def test_parts_are_those_of_the_lists_and_the_rest_is_held_out(tmp_path: Path, parts: Any, found: tuple[int, ...]) -> None:
    root = drawn_voc.write(tmp_path / "mine", 6, parts)
    data = VOC(str(root), size=64, cache=str(tmp_path / "cache"), validation=0.17, test=0.17)
    data.prepare()
    assert tuple(names_in(data, part) for part in ("train", "val", "test")) == found
    places = [data.part(part, "cpu").places for part in ("train", "val", "test")]  # pyright: ignore[reportOptionalMemberAccess]
    assert len({*np.concatenate(places).tolist()}) == sum(found), "no picture is in two"


def test_what_is_listed_twice_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = drawn_voc.write(tmp_path / "mine", 4, {"train": [0, 1, 2], "val": [2, 3]})
    VOC(str(root), size=64, cache=str(tmp_path / "cache")).prepare()
    assert "1 training samples are in ImageSets/Main/val.txt too" in capsys.readouterr().err
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    VOC(str(root), size=64, cache=str(tmp_path / "cache")).prepare()
    assert "ImageSets/Main/val.txt is ignored: there is no train.txt" in capsys.readouterr().err


def test_a_picture_without_boxes_is_a_sample_and_a_difficult_one_is_ignored(voc: Callable[..., VOC], root: Path) -> None:
    write(root, "p0", drawn_voc.xml("p0", (0, 0), []))
    write(root, "p2", drawn_voc.xml("p2", (96, 64), [("disc", (0, 0, 9, 6))] * 3))
    write(root, "p1", drawn_voc.xml("p1", (96, 64), [("disc", (1, 1, 20, 20))], "<difficult>1</difficult>"))
    data = voc(validation=0, test=0)
    source = data.part("train", "cpu")
    assert source is not None
    _, targets = source.batch(torch.tensor([0, 1]))
    assert (targets["labels"][0] == -1).all()
    assert targets["ignored"].tolist() == [[False] * 3, [True, False, False]]


def test_a_box_beyond_the_edge_is_cut_and_counted(voc: Callable[..., VOC], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, "p0", drawn_voc.xml("p0", (96, 64), [("disc", (-10, 32, 48, 99))]))
    source = voc(validation=0, test=0).part("train", "cpu")
    assert source is not None
    torch.testing.assert_close(source.batch(torch.tensor([0]))[1]["boxes"][0, 0], torch.tensor([0, 32, 48, 64.0]) * 64 / 96)
    assert "1 boxes go beyond their pictures and are cut" in capsys.readouterr().err


LAUGHS = '<!DOCTYPE a [<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12)) + "]><a>&l11;</a>"
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>'
FAULTS = {
    "outside": (
        drawn_voc.xml("p2", (96, 64), [("disc", (1, 1, 97, 20))]),
        r"the box 'disc' \[1, 1, 97, 20\] goes beyond the picture.*clip",
    ),
    "far": (drawn_voc.xml("p2", (96, 64), [("disc", (100, 1, 120, 20))]), r"goes beyond the picture"),
    "flat": (drawn_voc.xml("p2", (96, 64), [("disc", (5, 5, 5, 20))]), r"the box 'disc' \[5, 5, 5, 20\] has no area"),
    "turned": (drawn_voc.xml("p2", (96, 64), [("disc", (20, 5, 10, 20))]), r"has no area"),
    "not a number": (drawn_voc.xml("p2", (96, 64), [("disc", ("nan", 5, 10, 20))]), r"an edge that is no number"),
    "no number": (drawn_voc.xml("p2", (96, 64), [("disc", ("left", 5, 10, 20))]), r"an <object> has no number bndbox/xmin"),
    "no name": (drawn_voc.xml("p2", (96, 64), [("", (1, 5, 10, 20))]), r"an <object> has no name"),
    "unknown class": (drawn_voc.xml("p2", (96, 64), [("cat", (1, 5, 10, 20))]), r"the class 'cat', and data\.classes has disc, square"),
    "another size": (drawn_voc.xml("p2", (640, 480), []), r"of a picture of 640x480, and p2\.png has 96x64"),
    "torn": ("<annotation><object>", r"not readable as XML"),
    "no UTF-8": ("\udcff", r"is no UTF-8"),
    "a bomb": (LAUGHS, r"has a DOCTYPE"),
    "another file": (OUTSIDE, r"has a DOCTYPE"),
    "a page": ("<html><body>404</body></html>", r"begins with <html>, and an annotation with <annotation>; replace it"),
    "a namespace": (drawn_voc.xml("p2", (96, 64), []).replace("<annotation>", '<annotation xmlns="urn:x">'), r"begins with <\{urn:x\}ann"),
    "no corners": ("<annotation><object><name>disc</name></object></annotation>", r"an <object> has no number bndbox/xmin; mend it"),
    "huge": ("<a>" + " " * (5 << 20) + "</a>", r"has more than 4 MiB"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_an_annotation_is_one_line_or_left_out(fault: str, voc: Callable[..., VOC], root: Path) -> None:
    text, why = FAULTS[fault]
    (root / "Annotations" / "p2.xml").write_bytes(text.encode(errors="surrogateescape"))
    began = time.monotonic()
    options = {"classes": ["disc", "square"], "outside": "refuse"}
    with pytest.raises(ValueError, match=rf"^data\.root=\S+: Annotations/p2\.xml.*{why}.*data\.max_corrupt=10$") as refused:
        voc(**options).prepare()
    assert "\n" not in str(refused.value)
    assert time.monotonic() - began < 2
    data = voc(**options, max_corrupt=1)
    data.prepare()
    assert sum(names_in(data, part) for part in ("train", "val", "test")) == 5
    with pytest.raises(ValueError, match=why):
        voc(**options).prepare()  # what is kept says what it left out


def _no_annotation(root: Path) -> None:
    (root / "Annotations" / "p2.xml").unlink()


def _no_picture(root: Path) -> None:
    (root / "JPEGImages" / "p2.png").unlink()


def _half_a_picture(root: Path) -> None:
    path = root / "JPEGImages" / "p2.png"
    path.write_bytes(path.read_bytes()[:2000])


def _a_text(root: Path) -> None:
    (root / "JPEGImages" / "p2.png").write_text("not a picture")


def _gigabytes_of_one_colour(root: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(root / "JPEGImages" / "p2.png")


def _real_numbers(root: Path) -> None:
    (root / "JPEGImages" / "p2.png").unlink()
    Image.fromarray(np.full((64, 96), 0.5, np.float32)).save(root / "JPEGImages" / "p2.tif")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_no_annotation, r"Annotations has no p2\.xml for p2\.png; write one, without an <object> if nothing is in it"),
        (_no_picture, r"JPEGImages has no picture 'p2'"),
        (_half_a_picture, r"JPEGImages/p2\.png cannot be decoded"),
        (_a_text, r"JPEGImages/p2\.png cannot be decoded"),
        (_real_numbers, r"JPEGImages/p2\.tif cannot be decoded \(pixels of mode F"),
        (_gigabytes_of_one_colour, r"JPEGImages/p2\.png cannot be decoded .*decompression bomb"),
    ],
)
def test_a_file_that_is_missing_or_broken(harm: Callable[[Path], None], why: str, voc: Callable[..., VOC], root: Path) -> None:
    harm(root)
    with pytest.raises(ValueError, match=rf"^data\.root=\S+: {why}.*data\.max_corrupt=10$"):
        voc().prepare()
    data = voc(max_corrupt=1, validation=0, test=0)
    data.prepare()
    assert names_in(data, "train") == 5


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"root": None}, r"data\.root=null: there is nothing to read"),
        ({"root": "/nowhere"}, r"data\.root=/nowhere: there is no directory Annotations"),
        ({"size": 100}, r"data\.size=100: not possible; type a multiple of 32, e\.g\. data\.size=96"),
        ({"outside": "keep"}, r"data\.outside=keep: not known; type one of clip, refuse"),
        ({"classes": ["a", "a"]}, r"data\.classes=\['a', 'a'\]: not possible"),
        ({"classes": []}, r"data\.classes=\[\]: not possible"),
        ({"validation": 1.0}, r"data\.validation=1\.0: not possible"),
        ({"scale": -1.0}, r"data\.scale=-1\.0: not possible; type a number from 0 to 4"),
        ({"max_corrupt": -1}, r"data\.max_corrupt=-1"),
        ({"train_samples": 0}, r"data\.train_samples=0"),
        ({"fingerprint": "0123"}, r"data\.fingerprint=0123…: the data in .* are others"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(options: dict[str, Any], why: str, voc: Callable[..., VOC]) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=f"^{why}"):
        voc(**options).prepare()


def test_a_set_without_any_box_is_refused(voc: Callable[..., VOC], root: Path) -> None:
    for number in range(6):
        write(root, f"p{number}", drawn_voc.xml(f"p{number}", (96, 64), []))
    with pytest.raises(ValueError, match=r"no annotation has a box"):
        voc().prepare()


def test_annotations_that_change_are_other_data(voc: Callable[..., VOC], root: Path) -> None:
    pinned: dict[str, Any] = voc().prepare()
    write(root, "p0", drawn_voc.xml("p0", (96, 64), []))
    with pytest.raises(ValueError, match=r"^data\.fingerprint=.* are others"):
        voc(**pinned).prepare()
    assert names_in(voc(**pinned), "train") > 0, "what was kept of them is still there"


def test_a_picture_that_was_annotated_as_it_is_looked_at_is_turned(voc: Callable[..., VOC], root: Path) -> None:
    image = Image.fromarray(np.full((96, 64, 3), 200, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(root / "JPEGImages" / "p0.png", exif=exif)
    source = voc(validation=0, test=0).part("train", "cpu")
    assert source is not None
    assert (source.batch(torch.tensor([0]))[0][0, :, 43:].abs() < 0.02).all(), "96x64 once it is turned, as the annotation says"


def test_a_change_is_a_function_of_seed_epoch_and_place(voc: Callable[..., VOC]) -> None:
    source = voc(validation=0, test=0, scale=0.5, colour=0.3).part("train", "cpu")
    assert source is not None
    places = torch.arange(6)
    images, targets = source.epoch(3, 1)(places)
    alone, own = source.epoch(3, 1)(places[4:5])
    assert torch.equal(images[4:5], alone)
    assert torch.equal(targets["boxes"][4:5], own["boxes"])
    assert not torch.equal(source.epoch(3, 2)(places)[0], images)
    assert not torch.equal(source.epoch(4, 1)(places)[0], images)


@pytest.mark.parametrize(("flip", "scale"), [(True, 0.0), (False, 1.0), (True, 0.6)])
def test_boxes_go_where_their_pixels_go(flip: bool, scale: float, voc: Callable[..., VOC], root: Path) -> None:
    """A bright rectangle on a dark ground: its pixels and its box say the same, however it is moved."""
    for number in range(6):
        pixels = np.zeros((96, 96, 3), np.uint8)
        pixels[30:54, 12 + 6 * number : 36 + 6 * number] = 255
        Image.fromarray(pixels).save(root / "JPEGImages" / f"p{number}.png")
        write(root, f"p{number}", drawn_voc.xml(f"p{number}", (96, 96), [("disc", (12 + 6 * number, 30, 36 + 6 * number, 54))]))
    source = voc(size=96, validation=0, test=0, flip=flip, scale=scale, colour=0).part("train", "cpu")
    assert source is not None
    flips, ignored = 0, 0
    for epoch in range(8):
        images, targets = source.epoch(0, epoch)(torch.arange(6))
        for number, (image, box, label) in enumerate(zip(images, targets["boxes"][:, 0], targets["labels"][:, 0].tolist(), strict=True)):
            bright = torch.nonzero(image[0] > 1.0)
            assert (label >= 0) == (len(bright) > 0)
            if label >= 0:
                (top, left), (bottom, right) = bright.amin(0).tolist(), (bright.amax(0) + 1).tolist()
                assert torch.allclose(box, torch.tensor([left, top, right, bottom]).float(), atol=1.5)
                flips += scale == 0 and left == 96 - 36 - 6 * number
        ignored += int(targets["ignored"].sum())
    assert not (flip and scale == 0) or 10 < flips < 38
    if not scale:
        assert ignored == 0


def test_strangers_names_are_names(voc: Callable[..., VOC], root: Path) -> None:
    """Spaces, capitals, bytes that are no UTF-8; and ä as one sign here and as two there, as a Mac's zip has it."""
    names = {"p1": ("mein Bild 犬", "mein Bild 犬"), "p2": ("a\u0308", "ä"), "p3": (os.fsdecode(b"\xff"),) * 2}
    for name, (picture, annotation) in names.items():
        (root / "JPEGImages" / f"{name}.png").rename(root / "JPEGImages" / f"{picture}.PNG")
        (root / "Annotations" / f"{name}.xml").rename(root / "Annotations" / f"{annotation}.XML")
    assert names_in(voc(validation=0, test=0), "train") == 6
    (root / "ImageSets" / "Main" / "train.txt").write_text("mein Bild 犬\na\u0308\np4\n", encoding="utf-8")
    assert names_in(voc(validation=0, test=0), "train") == 3


def test_what_a_list_names_with_more_than_its_name_is_told(voc: Callable[..., VOC], root: Path) -> None:
    for line in ("p0.png", "p0 -1", "JPEGImages/p0.png"):
        (root / "ImageSets" / "Main" / "train.txt").write_text(f"{line}\n")
        with pytest.raises(ValueError, match=rf"has the line '{line}'; a name alone is wanted there, without folder and suffix: p0; or"):
            voc().prepare()
        with pytest.raises(ValueError, match=r"no annotation has a box; .* \(1 samples are left out: data.root=.* has the line"):
            voc(max_corrupt=1).prepare()


def test_what_lies_deeper_or_twice_is_told(voc: Callable[..., VOC], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(root / "JPEGImages" / "p2.png", root / "JPEGImages" / "p2.jpg")
    with pytest.raises(ValueError, match=r"^data\.root=\S+: JPEGImages has p2\.jpg and p2\.png, of one sample; take one away$"):
        voc().prepare()
    (root / "JPEGImages" / "p2.jpg").unlink()
    (root / "JPEGImages" / "more").mkdir()
    voc().prepare()
    assert "WARNING: data.root=" in (said := capsys.readouterr().err)
    assert "JPEGImages has folders, which are not looked into: more\n" in said
    for path in (root / "JPEGImages").glob("*.png"):
        path.rename(path.parent / "more" / path.name)
    with pytest.raises(FileNotFoundError, match=r"JPEGImages has no file of \.jpg, .*; put them there\. JPEGImages has folders, .*: more$"):
        voc().prepare()
    with pytest.raises(FileNotFoundError, match=rf"there is no directory Annotations; type data\.root={root}$"):
        VOC(str(root.parent)).prepare()


def test_white_is_white_and_a_vast_annotation_is_not_read(voc: Callable[..., VOC], root: Path) -> None:
    Image.fromarray(np.full((64, 96), 0x8000, np.uint16)).save(root / "JPEGImages" / "p0.png")
    with (root / "Annotations" / "p1.xml").open("wb") as file:
        file.truncate(20 << 30)
    data = voc(max_corrupt=1, validation=0, test=0)
    data.prepare()
    assert "p1.xml has more than 4 MiB" in data.corrupt.found[0]
    assert data._open().arrays["all.images"][0, 10, 10].tolist() == [128] * 3


REAL = Path(__file__).parents[2].parent / "shared" / "data" / "bccd"


def test_the_blood_cells_are_what_they_are(tmp_path: Path) -> None:
    if not (REAL / "Annotations").is_dir():
        pytest.skip(f"the real BCCD is not in {REAL}")
    data = VOC(str(REAL), size=32, cache=str(tmp_path / "cache"), max_corrupt=2)
    data.prepare()
    assert data.class_names == ("Platelets", "RBC", "WBC")
    assert [names_in(data, part) for part in ("train", "val", "test")] == [204, 86, 72]
    assert [why.partition("BloodImage_")[2][:5] for why in data.corrupt.found] == ["00338", "00343"], "boxes without area"
