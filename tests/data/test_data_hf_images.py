"""What MNIST and CIFAR-100 have in their own schema, and what they share with CIFAR-10 (test_data_cifar10.py)."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data.cifar100 import CIFAR100, CLASSES
from data.mnist import MNIST
from data.resident import Resident

REPO = Path(__file__).resolve().parents[2]


def write(path: Path, image: str, pixels: np.ndarray, **labels: list[int]) -> None:
    rows = []
    for each in pixels:
        file = io.BytesIO()
        Image.fromarray(each).save(file, "PNG")
        rows.append({"bytes": file.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(rows, kind), **{name: pa.array(values, pa.int64()) for name, values in labels.items()}})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for part, n in (("train", 30), ("test", 11)):
        write(tmp_path / f"mnist/mnist/{part}-00000-of-00001.parquet", "image", noise(n, 28, 28), label=[i % 10 for i in range(n)])
    return tmp_path / "mnist"


@pytest.fixture
def cifar100(tmp_path: Path) -> Path:
    for part, n in (("train", 120), ("test", 9)):
        fine = [(7 * i) % 100 for i in range(n)]
        path = tmp_path / f"cifar100/cifar100/{part}-00000-of-00001.parquet"
        write(path, "img", noise(n, 32, 32, 3), fine_label=fine, coarse_label=[label // 5 for label in fine])
    return tmp_path / "cifar100"


def batches(data: Any, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    loader = Resident(data, batch_size=4, accumulate=1, seed=0)
    loader.open(SimpleNamespace(dp_rank=0, dp_size=1), "cpu")
    images, labels = zip(*loader.evaluation(split), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_mnist_has_one_channel_and_is_standardised_by_its_training_part(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER_DATA", str(mnist.parent))
    pinned = MNIST(validation=5).prepare()
    assert pinned["root"] == str(mnist)
    data = MNIST(validation=5, pad=0, **pinned)
    assert (data.num_classes, data.channels, data.in_features, data.class_names[7]) == (10, 1, 784, "7")
    images, labels = batches(data, "test")
    assert images.shape == (11, 1, 28, 28)
    assert labels.tolist() == [i % 10 for i in range(11)]
    train = noise(30, 28, 28)[data._parts()["train"]].astype(np.float64)
    np.testing.assert_allclose(images[:, 0].numpy(), (noise(11, 28, 28) - train.mean()) / train.std(), atol=2e-6)


@pytest.mark.parametrize(("labels", "count"), [("fine", 100), ("coarse", 20)])
def test_cifar100_has_two_kinds_of_labels_of_the_same_images(cifar100: Path, labels: str, count: int) -> None:
    CIFAR100(root=str(cifar100), validation=20, labels="coarse" if labels == "fine" else "fine").prepare()
    data = CIFAR100(root=str(cifar100), validation=20, labels=labels)
    data.prepare()
    assert (data.num_classes, len(set(CLASSES[labels])), list(CLASSES[labels]) == sorted(CLASSES[labels])) == (count, count, True)
    images, found = batches(data, "test")
    assert images.shape == (9, 3, 32, 32)
    assert found.tolist() == [(7 * i) % 100 // (1 if labels == "fine" else 5) for i in range(9)]


def test_a_set_that_is_not_here_says_how_to_fetch_it(tmp_path: Path, mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match=r"MNIST is not here; fetch it with hf download ylecun/mnist .* data\.root=/path/to/mnist$"):
        MNIST().prepare()
    with pytest.raises(
        FileNotFoundError,
        match=r"^data\.root: .* has none of cifar100/\*.parquet, cifar-100-python/, .*; name the directory that holds one",
    ):
        CIFAR100(root=str(mnist)).prepare()
    with pytest.raises(ValueError, match=r"^data\.labels=both: not known; type one of fine, coarse$"):
        CIFAR100(labels="both")
    with pytest.raises(ValueError, match=r"^data\.pad=28: not possible; type a whole number from 0 to 27$"):
        MNIST(pad=28)


def test_the_real_mnist(cache: Path) -> None:
    place = REPO.parent / "shared" / "data" / "mnist"
    if not (place / "mnist").is_dir():
        pytest.skip(f"the real MNIST is not in {place}")
    data = MNIST(root=str(place), cache=str(cache))
    data.prepare()
    splits = data._open()
    assert [splits[part].images.shape for part in ("train", "test")] == [(60_000, 28, 28, 1), (10_000, 28, 28, 1)]
    mean, std = splits["train"].statistics(np.arange(60_000))
    np.testing.assert_allclose((mean[0] / 255, std[0] / 255), (0.1307, 0.3081), atol=2e-4)  # the figures that everybody uses


def _doubled(root: Path) -> Path:
    """20 pictures in training, two of them again; one of those in the test set, with another label."""
    train, test = noise(20, 28, 28), noise(30, 28, 28)[20:]
    train = np.concatenate([train, train[3:5]])
    test[4] = train[3]
    for part, images in (("train", train), ("test", test)):
        labels = [number % 10 for number in range(len(images))]
        labels[20:] = [3, 5] if part == "train" else []
        write(root / f"mnist/{part}-00000-of-00001.parquet", "image", images, label=labels)
    return root


def test_pixels_that_are_there_twice_are_kept_left_out_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _doubled(tmp_path / "double")
    kept = MNIST(root=str(root), validation=5)
    kept.prepare()
    dropped = MNIST(root=str(root), validation=5, duplicates="drop")
    capsys.readouterr()
    pinned = dropped.prepare()
    said = capsys.readouterr().err
    assert "data: 3 duplicates are left out (data.duplicates=drop), 1 of them in a part before: picture 20 (train) is picture 3" in said
    assert "WARNING: 2 duplicates have another label than the first" in said
    assert pinned["fingerprint"] != kept.fingerprint
    assert [len(each._open()[part].labels) for each in (kept, dropped) for part in ("train", "test")] == [22, 10, 20, 9]
    np.testing.assert_array_equal(dropped._open()["train"].images[..., 0], noise(20, 28, 28))
    again = MNIST(validation=5, **{**pinned, "duplicates": "drop"})  # from the cache, as a worker has it
    again.prepare()
    assert again.duplicates.found == dropped.duplicates.found
    with pytest.raises(ValueError, match=r"^data\.duplicates=refuse: picture 20 \(train\) is picture 3 \(train\) again; take one away"):
        MNIST(root=str(root), validation=5, duplicates="refuse").prepare()
    with pytest.raises(ValueError, match=r"^data\.fingerprint="):
        MNIST(validation=5, **pinned).prepare()


def test_what_has_no_label_is_refused_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, labels in (("train", [-1, 1, None, *range(10)]), ("test", [1, 2])):
        path = tmp_path / f"mnist/{part}-00000-of-00001.parquet"
        write(path, "image", noise(len(labels), 28, 28), label=labels)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"has the label -1 in row 0.*data\.unlabelled=drop; or leave .*: data\.max_corrupt=10$"):
        MNIST(root=str(tmp_path), validation=2).prepare()
    for _ in range(2):  # decoded, and from the cache
        data = MNIST(root=str(tmp_path), validation=2, unlabelled="drop")
        data.prepare()
        assert len(data._open()["train"].labels) == 11
        assert "data: 2 samples have no label and are left out (data.unlabelled=drop)" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"^data\.unlabelled=keep: not known; type one of refuse, drop$"):
        MNIST(unlabelled="keep")
