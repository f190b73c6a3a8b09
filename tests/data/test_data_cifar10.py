"""CIFAR10: where it looks, what it refuses, what it pins, and the real images."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data.cifar10 import CIFAR10, CLASSES, FILES
from data.resident import Resident

Start = Callable[..., "subprocess.Popen[str]"]


def tiny(root: Path | str, **options: Any) -> CIFAR10:
    return CIFAR10(root=str(root), **{"validation": 10, **options})


def opened(data: CIFAR10, batch_size: int = 8, seed: int = 0, rank: int = 0, size: int = 1) -> Resident:
    loader = Resident(data, batch_size=batch_size, accumulate=1, seed=seed)
    loader.open(SimpleNamespace(dp_rank=rank, dp_size=size), "cpu")
    return loader


def images_of(data: CIFAR10, split: str) -> torch.Tensor:
    return torch.cat([images for images, _ in opened(data).evaluation(split)])


def test_prepare_pins_what_it_found_and_a_worker_needs_no_more(root: Path, images: Callable[..., np.ndarray]) -> None:
    pinned = tiny(root).prepare()
    assert pinned["root"] == str(root)
    assert pinned["source"] == "files"
    data = CIFAR10(**{"validation": 10, **pinned})
    assert not data.standin
    assert (data.num_classes, data.class_names) == (10, CLASSES)
    loader = opened(data)
    assert loader.samples == 60
    assert {split: loader.evaluation(split).samples for split in ("train", "val", "test")} == {"train": 60, "val": 10, "test": 23}
    labels = torch.cat([labels for _, labels in loader.evaluation("test")])
    assert labels.tolist() == [(3 * i) % 10 for i in range(23)]


def test_a_worker_reads_the_cache_and_not_the_files(root: Path) -> None:
    pinned = tiny(root).prepare()
    for name in FILES.values():
        (root / name).unlink()
    assert opened(CIFAR10(**{"validation": 10, **pinned})).samples == 60


def test_standardisation_is_that_of_the_training_part_alone(root: Path, images: Callable[..., np.ndarray]) -> None:
    data = tiny(root, train_samples=20)
    total = images_of(data, "train").double()
    assert len(total) == 20
    assert total.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (total.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    test = images_of(data, "test")
    pixels = images(70, 0)[data._parts()["train"]].astype(np.float64)
    expected = (images(23, 1) - pixels.mean(axis=(0, 1, 2))) / pixels.std(axis=(0, 1, 2))
    np.testing.assert_allclose(test.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-6)


def test_the_seed_of_the_data_decides_the_parts_and_that_of_the_run_the_order(root: Path) -> None:
    def validation(**options: Any) -> bytes:
        return images_of(tiny(root, **options), "val").mean(dim=(1, 2, 3)).numpy().tobytes()

    assert validation() == validation(train_samples=None, pad=0)
    assert validation() != validation(seed=1)
    first = [next(opened(tiny(root), seed=seed).steps(0))[1].tolist() for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]


def test_fewer_training_samples_are_the_first_of_the_part(root: Path) -> None:
    few, all_of_them = (tiny(root, train_samples=n)._parts()["train"] for n in (20, None))
    assert few.tolist() == all_of_them[:20].tolist()
    with pytest.raises(ValueError, match=r"^data\.train_samples=61: the training part has 60 samples"):
        opened(tiny(root, train_samples=61))


def test_without_validation_that_part_is_empty(root: Path) -> None:
    loader = opened(tiny(root, validation=0))
    assert loader.samples == 70
    assert loader.evaluation("val").samples == len(list(loader.evaluation("val"))) == 0


def test_other_data_than_the_run_began_with_is_refused(root: Path, tmp_path: Path, write: Callable[..., Path], images: Any) -> None:
    pinned = tiny(root).prepare()
    write(root / FILES["test"], images(23, 99), [0] * 23)
    for data in (CIFAR10(**{"validation": 10, **pinned}), CIFAR10(**{"validation": 10, **pinned, "cache": str(tmp_path / "node2")})):
        with pytest.raises(ValueError, match=rf"^data\.fingerprint=.*: the data in {root} is other data .*data\.fingerprint=null$"):
            data.prepare() if data.cache.name == "cache" else opened(data)
    with pytest.raises(ValueError, match=r"^data\.fingerprint=.*: the built-in stand-in is other data"):
        CIFAR10(source="standin", fingerprint=str(pinned["fingerprint"])).prepare()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"source": "web"}, r"data\.source=web: not known; type one of auto, files, standin"),
        ({"offline": "yes"}, r"data\.offline=yes: not known; type one of standin, error"),
        ({"validation": -1}, r"data\.validation=-1: not possible; type a whole number of at least 0"),
        ({"validation": 0.1}, r"data\.validation=0\.1"),
        ({"seed": "one"}, r"data\.seed=one"),
        ({"pad": 32}, r"data\.pad=32: not possible; type a whole number from 0 to 31"),
        ({"cutout": 33}, r"data\.cutout=33: not possible; type a whole number from 0 to 32"),
        ({"train_samples": 0}, r"data\.train_samples=0: not possible; type a whole number of at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_read(options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=f"^{what}"):
        CIFAR10(**options)


def test_a_validation_part_as_large_as_the_data_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.validation=2000: there are 70 training samples"):
        opened(CIFAR10(root=str(root)))


def test_a_root_without_the_files_is_refused_and_nothing_else_is_tried(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^data\.root: {tmp_path}/none has none of plain_text/\*\.parquet, cifar-10-b"):
        tiny(tmp_path / "none").prepare()
    (root / FILES["test"]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"^data\.root: {root} has no plain_text/test-00000-of-00001.parquet beside the rest"):
        tiny(root).prepare()


def test_a_torn_file_is_one_line_and_leaves_no_cache(root: Path, tmp_path: Path) -> None:
    with (root / FILES["test"]).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match=rf"^data\.root={root}: {FILES['test']} is not readable as parquet"):
        tiny(root).prepare()
    assert not (tmp_path / "cache").exists()


def test_the_shelf_is_found(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    root.rename(shelf / "cifar10")
    monkeypatch.setenv("LAUNCHER_DATA", str(shelf))
    assert CIFAR10(validation=10).prepare()["root"] == str(shelf / "cifar10")
    (shelf / "cifar10" / FILES["train"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"^LAUNCHER_DATA: .*/shelf/cifar10 has no plain_text/train"):
        CIFAR10(validation=10).prepare()


PREPARE = """
import json, sys
from data.cifar10 import CIFAR10
try:
    data = CIFAR10(**json.loads(sys.argv[1]))
    pinned = data.prepare()
    print(data.standin, data.class_names[0], json.dumps(pinned))
except (OSError, ValueError) as error:
    print(type(error).__name__, error)
assert not {"torch", "launcher", "models"} & set(sys.modules), "what submits is quick to start"
"""


@pytest.mark.timeout(60)
def test_without_a_network_the_stand_in_is_pinned_and_says_so(start: Start, tmp_path: Path) -> None:
    env = {"HF_HUB_OFFLINE": "1", "LAUNCHER_DATA": str(tmp_path / "empty")}
    out, err = start(PREPARE, "{}", env=env).communicate(timeout=40)
    assert out.startswith('True disc {"root": null, "source": "standin", "fingerprint": "'), err
    shelf, warning = err.splitlines()
    assert shelf == f"LAUNCHER_DATA={tmp_path / 'empty'} has no cifar10/plain_text; looking for CIFAR-10 on the Hugging Face hub"
    assert warning.startswith("WARNING: CIFAR-10 is not here and cannot be downloaded (")
    for said in ("training on the built-in stand-in", "NOT CIFAR-10's", "data.root=/path/to/cifar10", "data.offline=error"):
        assert said in warning


@pytest.mark.timeout(60)
@pytest.mark.parametrize("options", ['{"offline": "error"}', '{"source": "files"}'])
def test_without_a_network_it_refuses_where_that_is_asked(start: Start, options: str, tmp_path: Path) -> None:
    out, err = start(PREPARE, options, env={"HF_HUB_OFFLINE": "1"}).communicate(timeout=40)
    asked = "data.offline=error" if "offline" in options else "data.source=files"
    assert out.startswith(f"FileNotFoundError {asked}: CIFAR-10 is not here and cannot be downloaded (")
    assert "data.root=/path/to/cifar10" in out
    assert len(out.splitlines()) == 1
    assert err == ""
    assert not (tmp_path / "cache").exists()


def test_the_stand_in_trains_and_ignores_a_root_aloud(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = CIFAR10(source="standin", root=str(root))
    assert data.prepare()["root"] is None
    assert capsys.readouterr().err == f"WARNING: data.root={root} is ignored: data.source=standin draws its images\n"
    loader = opened(data)
    assert loader.samples == 8000
    assert loader.evaluation("test").samples == 2000
    assert data.class_names[5] == "diamond"


def test_the_real_images(shared_data: Path, cache: Path) -> None:
    data = CIFAR10(root=str(shared_data), cache=str(cache))
    data.prepare()
    splits = data._open()
    for name, samples in (("train", 50_000), ("test", 10_000)):
        assert splits[name].images.shape == (samples, 32, 32, 3)
        assert np.bincount(splits[name].labels).tolist() == [samples // 10] * 10
    assert opened(data, batch_size=512).steps_per_epoch == 48_000 // 512
    mean, std = splits["train"].statistics(np.arange(50_000))
    # The figures that everybody uses for CIFAR-10; re-compressed images differ in the third digit.
    np.testing.assert_allclose(mean / 255, (0.4914, 0.4822, 0.4465), atol=0.003)
    np.testing.assert_allclose(std / 255, (0.2470, 0.2435, 0.2616), atol=0.006)
    seen = sum(len(labels) for rank in range(3) for _, labels in opened(data, 9, rank=rank, size=3).evaluation("test"))
    assert seen == 10_000
