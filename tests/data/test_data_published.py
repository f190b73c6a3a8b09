"""CIFAR-10, CIFAR-100 and MNIST as their authors publish them: the pixels of the parquet, and no pickle is ever loaded."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import pickletools
import struct
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_data_hf_images import batches, noise
from test_data_hf_images import write as write_parquet

from data.cifar10 import CIFAR10
from data.cifar100 import CIFAR100
from data.mnist import MNIST
from data.store import pickled
from data.vision import layouts

REPO = Path(__file__).resolve().parents[2]
PER_BATCH, IN_TEST = 12, 9


def pixels(real: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of the training set and the test set, (n, 32, 32, 3); of the real CIFAR-10 where that is at hand."""
    train, test = noise(5 * PER_BATCH, 32, 32, 3), noise(IN_TEST, 32, 32, 3)[::-1].copy()
    place = REPO.parent / "shared/data/cifar10/plain_text"
    if real and place.is_dir():
        group = pq.ParquetFile(place / "test-00000-of-00001.parquet").iter_batches(len(train) + len(test), columns=["img"])
        encoded = [row["bytes"] for row in next(group).column("img").to_pylist()]
        found = np.stack([np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in encoded])
        train, test = found[: len(train)], found[len(train) :]
    return train, test


def rows(images: np.ndarray) -> np.ndarray:
    """Red, green and blue one after the other, as Krizhevsky has them."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


def as_python2(batch: dict[bytes, Any]) -> bytes:
    """What cPickle of Python 2 wrote, instruction by instruction, as the published files have it."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<I", len(value)) + value

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    out = b"\x80\x02}q\x01("
    for key, value in batch.items():
        out += text(key) + b"q\x02"
        if isinstance(value, np.ndarray):
            out += b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07(K\x01"
            out += number(value.shape[0]) + number(value.shape[1]) + b"\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09"
            out += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(value.tobytes()) + b"tb"
        elif isinstance(value, list):
            out += b"]q\x03(" + b"".join(number(each) if isinstance(each, int) else text(each) for each in value) + b"e"
        else:
            out += text(value)
    return out + b"u."


def as_python3(batch: dict[bytes, Any]) -> bytes:
    return pickle.dumps(batch, protocol=2)


def batch_of(images: np.ndarray, labels: list[int], name: str = "a") -> dict[bytes, Any]:
    names = [f"{name}_{number}.png".encode() for number in range(len(images))]
    return {b"batch_label": name.encode(), b"labels": labels, b"data": rows(images), b"filenames": names}


def labels_of(count: int, classes: int = 10) -> list[int]:
    return [(3 * number) % classes for number in range(count)]


def cifar10_files(real: bool = False) -> tuple[dict[str, tuple[np.ndarray, list[int]]], np.ndarray, np.ndarray]:
    """By the names of the published files; and all pictures."""
    train, test = pixels(real)
    labels = labels_of(len(train))
    parts = {
        f"data_batch_{n + 1}": (train[n * PER_BATCH : (n + 1) * PER_BATCH], labels[n * PER_BATCH : (n + 1) * PER_BATCH]) for n in range(5)
    }
    return {**parts, "test_batch": (test, labels_of(len(test)))}, train, test


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    def call(train: np.ndarray, test: np.ndarray) -> Path:
        for part, images in (("train", train), ("test", test)):
            path = tmp_path / f"hf/plain_text/{part}-00000-of-00001.parquet"
            write_parquet(path, "img", images, label=labels_of(len(images)))
        return tmp_path / "hf"

    return call


def packed(folder: Path, archive: Path) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        for path in (folder, *sorted(folder.iterdir(), reverse=True)):  # in no order, as published
            tar.add(path, f"{folder.name}/{path.name}" if path != folder else folder.name, recursive=False)


def lay(root: Path, how: str, real: bool = False) -> tuple[np.ndarray, np.ndarray]:
    files, train, test = cifar10_files(real)
    folder = root / ("cifar-10-batches-bin" if how.startswith("binary") else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    for name, (images, labels) in files.items():
        if how.startswith("binary"):
            found = np.concatenate([np.array(labels, np.uint8)[:, None], rows(images)], 1).tobytes()
            (folder / f"{name}.bin").write_bytes(found)
        else:
            write = as_python3 if "3" in how else as_python2
            (folder / name).write_bytes(write(batch_of(images, labels, name)))
    if "packed" in how:
        packed(folder, root / ("cifar-10-binary.tar.gz" if how.startswith("binary") else "cifar-10-python.tar.gz"))
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    return train, test


@pytest.mark.parametrize("how", ["pickles", "pickles of Python 3", "pickles packed", "binary", "binary packed"])
def test_what_is_published_is_what_a_lossless_parquet_has(
    how: str, tmp_path: Path, parquet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = lay(tmp_path / "published", how, real=True)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was loaded")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    one, other = (CIFAR10(root=str(root), validation=10) for root in (tmp_path / "published", parquet(train, test)))
    pinned = one.prepare()
    assert ("pickles" in capsys.readouterr().err) == how.startswith("pickles"), "which layout it is, is said"
    assert pinned["fingerprint"] != other.prepare()["fingerprint"]
    for split in ("train", "val", "test"):
        for mine, theirs in zip(batches(one, split), batches(other, split), strict=True):
            assert torch.equal(mine, theirs)
    np.testing.assert_array_equal(one._open()["train"].images, train)
    # A run goes on with these data and no other.
    name = next((tmp_path / "published").rglob("*.tar.gz" if "packed" in how else "*batch*2*"))
    name.write_bytes(name.read_bytes() + b"\0" * 3073)
    with pytest.raises(ValueError, match=r"^data\.fingerprint=.*is other data"):
        CIFAR10(**{"validation": 10, **pinned}).prepare()


@pytest.mark.parametrize("kind", ["python", "binary", "python packed", "binary packed"])
@pytest.mark.parametrize(("which", "classes"), [("fine", 100), ("coarse", 20)])
def test_cifar100_as_it_is_published(tmp_path: Path, kind: str, which: str, classes: int) -> None:
    folder = tmp_path / f"cifar-100-{kind.partition(' ')[0]}"
    folder.mkdir()
    for name, n in (("train", 40), ("test", 9)):
        images, fine = noise(n, 32, 32, 3), labels_of(n, 100)
        coarse = [label // 5 for label in fine]
        if kind.startswith("python"):
            more = {b"fine_labels": fine, b"coarse_labels": coarse, b"data": rows(images), b"filenames": [b"x"] * n}
            (folder / name).write_bytes(as_python2(more))
        else:
            both = np.array([coarse, fine], np.uint8).T
            (folder / f"{name}.bin").write_bytes(np.concatenate([both, rows(images)], 1).tobytes())
    if "packed" in kind:
        packed(folder, tmp_path / f"{folder.name}.tar.gz")
        folder.rename(tmp_path / "away")
    data = CIFAR100(root=str(tmp_path), labels=which, validation=5)
    data.prepare()
    test = data._open()["test"]
    np.testing.assert_array_equal(test.images, noise(9, 32, 32, 3))
    assert (data.num_classes, test.labels.tolist()) == (classes, [each // (100 // classes) for each in labels_of(9, 100)])


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("folder", ["MNIST/raw", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_as_it_is_published(tmp_path: Path, folder: str, suffix: str) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, n in (("train", 30), ("t10k", 11)):
        for kind, array in (("images-idx3", noise(n, 28, 28)), ("labels-idx1", np.array(labels_of(n)))):
            raw = idx(array)
            (tmp_path / folder / f"{name}-{kind}-ubyte{suffix}").write_bytes(gzip.compress(raw) if suffix else raw)
    data = MNIST(root=str(tmp_path), validation=5)
    data.prepare()
    assert data._open()["test"].labels.tolist() == labels_of(11)
    np.testing.assert_array_equal(data._open()["test"].images[..., 0], noise(11, 28, 28))
    path = tmp_path / folder / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"^data\.root=.*t10k-images-idx3-ubyte.* (is no gzip file, or cut|has .* bytes and not the)"):
        MNIST(root=str(tmp_path), validation=5).prepare()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


def _memo_loop() -> bytes:
    return b"\x80\x02}q\x00(U\x04dataq\x01]q\x02h\x02aU\x06labelsh\x02u."


def _encoded_again_and_again() -> bytes:
    text = b"a" * 200_000
    return (
        b"\x80\x02(c_codecs\nencode\nq\x00X"
        + struct.pack("<I", len(text))
        + text
        + b"q\x01"
        + b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 500
    )


GOOD = as_python2(batch_of(noise(PER_BATCH, 32, 32, 3), labels_of(PER_BATCH)))
HOSTILE = {
    "os.system": (pickle.dumps({b"data": Evil()}, 2), r"names posix\.system, which is no part of batches; nothing of it was run"),
    "os.system, protocol 4": (pickle.dumps(Evil(), 4), r"names posix\.system"),
    "os.system, protocol 0": (pickle.dumps(Evil(), 0), r"names posix\.system"),
    "builtins.eval": (b"\x80\x02c__builtin__\neval\nU\x041+1 \x85R.", "names __builtin__.eval"),
    "an object of a class": (b"\x80\x02(ios\nsystem\n.", "it has INST"),
    "copyreg": (pickle.dumps({b"data": Path("a")}, 2), "names "),
    "an extension": (b"\x80\x02\x82\x01.", "it has EXT1"),
    "a persistent id": (b"\x80\x02Pid\n.", "it has PERSID"),
    "cut": (GOOD[:-4000], "is cut, or no pickle of batches"),
    "cut before its end": (GOOD[:-1], "is cut, or no pickle of batches"),
    "empty": (b"", "is cut, or no pickle of batches"),
    "no pickle": (b"\x89PNG\r\n\x1a\n", "is cut, or no pickle|it has|has no data"),
    "a list that holds itself": (_memo_loop(), "has as data no array"),
    "a text encoded again and again": (_encoded_again_and_again(), "makes more of itself than it is"),
    "instructions without end": (b"\x80\x02" + b"N" * 1_100_000 + b".", "has more than 1,000,000 instructions"),
    "a length that is none": (b"\x80\x02T\xff\xff\xff\x7f.", "is cut"),
    "deep": (b"\x80\x02N" + b"\x85" * 900_000 + b".", "holds no dict"),
    "a shape that is larger than its bytes": (GOOD.replace(b"K\x0cM\x00\x0c\x86", b"K\xffM\xff\xff\x86"), "whose shape takes"),
    "a reduce of a dict": (b"\x80\x02cnumpy\ndtype\n}R.", "is cut, or no pickle of batches"),
    "an array of objects": (pickle.dumps({b"data": np.array([1, "a"], object)}, 2), r"has an array of O8, not of whole numbers"),
    "big-endian": (pickle.dumps({b"data": np.zeros(2, ">i4")}, 2), "another byte order"),
    "another shape": (as_python2({b"data": noise(4, 5), b"labels": [0] * 4}), r"has as data uint8 \(4, 5\), not uint8 \(rows, 3072\)"),
    "no labels": (as_python2({b"data": noise(4, 3072)}), "has no labels, but data"),
    "labels of another length": (as_python2({b"data": noise(4, 3072), b"labels": [1]}), "has 1 labels for 4 rows of data"),
    "labels that are texts": (as_python2({b"data": noise(1, 3072), b"labels": [b"a"]}), "has labels that are not whole numbers"),
    "a label beyond": (as_python2({b"data": noise(1, 3072), b"labels": [10]}), r"has the label 10 in row 0, not one of 0\.\.9"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_one_line_and_runs_nothing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path / "published", "pickles")
    (tmp_path / "published/cifar-10-batches-py/data_batch_3").write_bytes(HOSTILE[name][0])
    began = time.process_time()
    with pytest.raises(ValueError, match=rf"^data\.root=.*/published: cifar-10-batches-py/data_batch_3 .*({HOSTILE[name][1]})") as refused:
        CIFAR10(root="published", validation=10).prepare()
    assert time.process_time() - began < 4, "promise e of docs/security.md, on a busy machine"
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "canary").exists()
    assert not any((tmp_path / "cache").glob("cifar10*v2")), "nothing half-written"


def test_every_instruction_that_is_known_is_one_that_makes_data() -> None:
    """By their names: none that looks something up elsewhere but GLOBAL, whose names are four."""
    known = {each.name for each in pickletools.opcodes if each.code.encode("latin-1") in pickled._STEP}
    assert known.isdisjoint({"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER"})
    assert {module for module, _ in pickled._NAMES} == {"numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs"}


def test_what_pickles_may_hold_is_read_as_pickle_reads_it() -> None:
    for protocol in (2, 3, 4):
        for made in (
            {"a": [1, -5, 70_000, (1, 2, 3, 4), (), None, True, "ä", 1 << 40], "b": {"c": b"d"}},
            {"x": np.arange(6).reshape(2, 3)},
        ):
            found = pickled.read(pickle.dumps(made, protocol))
            assert repr(found) == repr(made)
    by_columns = pickled.read(pickle.dumps({"x": np.asfortranarray(np.arange(6).reshape(2, 3))}, 2))["x"]
    np.testing.assert_array_equal(by_columns, np.arange(6).reshape(2, 3))


def test_an_archive_that_is_cut_hostile_or_huge_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, "pickles packed")
    archive = tmp_path / "cifar-10-python.tar.gz"
    whole = archive.read_bytes()

    def said() -> str:
        with pytest.raises(ValueError, match=rf"^data\.root={tmp_path}: cifar-10-python.tar.gz .*; download it again") as refused:
            CIFAR10(root=str(tmp_path), validation=10).prepare()
        return str(refused.value)

    archive.write_bytes(whole[: len(whole) // 2])
    assert "is no gzip file, or cut" in said()
    archive.write_bytes(b"no gzip")
    assert "is no gzip file, or cut" in said()
    archive.write_bytes(gzip.compress(b"x" * 2048))
    assert "is no tar of batches" in said()
    archive.write_bytes(gzip.compress(gzip.decompress(whole).replace(b"data_batch_4", b"data_batch_x")))
    assert "has no cifar-10-batches-py/data_batch_4 in it" in said()
    archive.write_bytes(whole)
    monkeypatch.setattr(layouts, "_MOST", 100_000)
    assert "is cut, or larger than the 0 MiB" in said()


def test_a_folder_with_none_and_one_that_is_not_whole_name_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        CIFAR10(root=str(tmp_path)).prepare()
    for place in (
        "plain_text/*.parquet",
        "cifar-10-batches-py/",
        "cifar-10-batches-bin/",
        "cifar-10-python.tar.gz",
        "cifar-10-binary.tar.gz",
    ):
        assert place in str(refused.value)
    with pytest.raises(
        FileNotFoundError, match=r"mnist/\*.parquet, MNIST/raw/\*-ubyte, MNIST/raw/\*-ubyte.gz, \*-ubyte, \*-ubyte.gz; name"
    ):
        MNIST(root=str(tmp_path)).prepare()
    lay(tmp_path, "pickles")
    (tmp_path / "cifar-10-batches-py/data_batch_5").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no cifar-10-batches-py/data_batch_5 beside the rest of cifar-10-batches-py/; copy it"
    ):
        CIFAR10(root=str(tmp_path)).prepare()


def test_the_shelf_has_any_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path / "cifar10", "pickles")
    monkeypatch.setenv("LAUNCHER_DATA", str(tmp_path))
    assert CIFAR10(validation=10).prepare()["root"] == str(tmp_path / "cifar10")


def test_a_label_that_is_none_may_be_left_out(tmp_path: Path) -> None:
    lay(tmp_path, "pickles")
    path = tmp_path / "cifar-10-batches-py/data_batch_2"
    path.write_bytes(as_python2({b"data": noise(4, 3072), b"labels": [1, 10, 2, 3]}))
    data = CIFAR10(root=str(tmp_path), validation=5, max_corrupt=1)
    data.prepare()
    assert len(data._open()["train"].labels) == 4 * PER_BATCH + 3
