"""Pictures that cannot be read, in sets of files: the run stops before it starts, or leaves out as many as it was told to, the same ones
each time."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.imagefolder import ImageFolder
from data.store.files import lost
from data.vision import readable
from data.vision.picture import Picture


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


def _gone(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _vast(path: Path) -> None:
    """60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, raw: bytes) -> bytes:
        return struct.pack(">I", len(raw)) + kind + raw + struct.pack(">I", zlib.crc32(kind + raw))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "of no kind that is read"),
    "text": (lambda path: path.write_text("not found: 404\n" * 20), "of no kind that is read"),
    "cut": (_cut, "image file is truncated|Truncated File Read|broken data stream"),
    "gone": (_gone, "No such file or directory"),
    "loop": (_loop, "Too many levels of symbolic links"),
    "vast": (_vast, "decompression bomb"),
    "postscript": (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"), "of no kind"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 255, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.jpg")
    return tmp_path / "mine"


def made(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(str(root), **{"size": 8, "cache": str(root.parent / "cache"), **options})


def names(data: ImageFolder) -> list[str]:
    return [data._pictures.names[place] for place in data._places]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_kind_is_one_line_before_the_start_or_left_out(root: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    spoil, why = FAULTS[fault]
    spoil(root / "cats" / "7.jpg")
    with pytest.raises(ValueError, match=rf"^data\.root={root}: cats/7\.jpg is no picture .*({why})") as refused:
        made(root).prepare()
    assert str(refused.value).endswith("; take it away, or leave such pictures out: data.max_corrupt=10")
    assert "\n" not in str(refused.value)
    parts = {split: made(root, split=split, max_corrupt=1) for split in ("train", "val", "test")}
    capsys.readouterr()
    pinned = parts["train"].prepare()
    assert "WARNING: 1 samples cannot be read and are left out (data.max_corrupt=1): data.root=" in capsys.readouterr().err
    chosen = [name for part in parts.values() for name in names(part)]
    assert sorted(chosen) == sorted({*chosen}), "each is in one part"
    assert len(chosen) == 19
    assert "cats/7.jpg" not in chosen
    assert [data[place][1] for data in parts.values() for place in range(len(data))], "all of them can be read"
    assert names(made(root, max_corrupt=1, fingerprint=pinned["fingerprint"])) == names(parts["train"]), "a run goes on with the same"


def test_more_than_allowed_stop_it_and_all_are_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cats/3.jpg", "dogs/1.jpg", "dogs/9.jpg"):
        (root / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"dogs/9\.jpg is no picture.*; 2 samples before it were left out, which is data\.max_corrupt$"):
        made(root, max_corrupt=2)
    pinned = made(root, max_corrupt=3).prepare()
    with monkeypatch.context() as patched:
        patched.setattr(Picture, "examine", lambda picture, file: pytest.fail("it is looked at again"))
        assert len(made(root, max_corrupt=9, test=0.0, val=0.0)) == 17
        with pytest.raises(ValueError, match=r"; 1 samples before it were left out"):
            made(root, max_corrupt=1)
    _cut(root / "cats" / "0.jpg")
    with pytest.raises(ValueError, match=r"^data\.fingerprint=.*other pictures now"):
        made(root, max_corrupt=9, fingerprint=pinned["fingerprint"])
    with pytest.raises(ValueError, match=r"^data\.max_corrupt=-1: not possible"):
        made(root, max_corrupt=-1)


def test_a_picture_that_is_lost_later_is_named(root: Path) -> None:
    strict, lenient = made(root), made(root, max_corrupt=1)
    for data, instead in (
        (strict, "or leave such pictures out"),
        (lenient, "and start a new run: it could be read when all were looked at"),
    ):
        path = root / names(data)[0]
        raw = path.read_bytes()
        path.unlink()
        with pytest.raises(ValueError, match=rf"is no picture that can be read \(No such file or directory\); take it away,? {instead}"):
            data[0]
        path.write_bytes(raw)


def test_a_class_or_a_part_of_which_nothing_stays_is_refused(root: Path) -> None:
    for path in (root / "dogs").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no picture of the class 'dogs' stays \(data\.max_corrupt, data\.duplicates\)"):
        made(root, max_corrupt=10)
    (root / "train").mkdir()
    (root / "cats").rename(root / "train" / "cats")
    (root / "val" / "cats").mkdir(parents=True)
    (root / "val" / "cats" / "x.jpg").write_bytes(b"")
    (root / "dogs").rename(root / "train" / "dogs")
    for path in (root / "train" / "dogs").iterdir():
        path.write_bytes((root / "train" / "cats" / "0.jpg").read_bytes())
    with pytest.raises(ValueError, match=r"^data: no picture of val in .* can be read: data\.root=.*val: cats/x\.jpg"):
        made(root, max_corrupt=10)


def test_what_cannot_be_read_is_left_out_before_doubles_are_looked_for(root: Path) -> None:
    (root / "cats" / "again.jpg").write_bytes((root / "cats" / "0.jpg").read_bytes())
    _gone(root / "cats" / "1.jpg")
    data = made(root, val=0, test=0, max_corrupt=1, duplicates="drop")
    assert sorted({f"{kind}/{number}.jpg" for kind in ("cats", "dogs") for number in range(10)} - {*names(data)}) == ["cats/1.jpg"]
    assert len(data) == 19


def test_a_disk_that_fails_leaves_nothing_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Image.open

    def failing(file: Any, *args: Any, **named: Any) -> Any:
        if str(file).endswith("dogs/4.jpg"):
            raise OSError(errno.EIO, "Input/output error", str(file))
        return real(file, *args, **named)

    monkeypatch.setattr(Image, "open", failing)
    for limit in (0, 5):
        with pytest.raises(OSError, match=r"Input/output error: .*dogs/4\.jpg"):
            made(root, max_corrupt=limit).prepare()
    assert [lost(OSError(number, "")) for number in (errno.EIO, errno.ESTALE, errno.ENOENT, errno.ELOOP)] == [True, True, False, False]
    assert not lost(OSError("image file is truncated"))


def test_of_a_large_folder_some_are_looked_at_from_all_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readable, "GLANCE_SECONDS", 60.0)
    for count in (0, 1, 2, 7, 100):
        seen: list[int] = []
        readable.some(count, seen.append)
        assert sorted(seen) == [*range(count)], "with time enough each once"
    monkeypatch.setattr(readable, "GLANCE_SECONDS", 0.0)
    seen = []
    readable.some(1000, seen.append)
    assert len(seen) < 1000


def test_odd_names_are_told_in_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for raw in (b"\xff\xfe.jpg", b"a\nb.jpg", "ä ö.JPG".encode()):
        (root / "cats" / os.fsdecode(raw)).write_bytes(b"")
    made(root, max_corrupt=3).prepare()
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "3 samples cannot be read" in line]) == 1
