"""`data`: what would be trained on is shown, and no run is made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Launch
from PIL import Image

from launcher.errors import ConfigError
from launcher.train import look
from launcher.verbs.data import _classes


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes in folders of splits; one picture is there twice, one in two splits, one in two classes."""
    root = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 12), ("val", 3), ("test", 3)):
        for number, name in enumerate(("boats", "cats", "dogs")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for each in range(count):
                Image.new("RGB", (12, 12), (80 * number, 10 * each, {"train": 0, "val": 90, "test": 200}[split])).save(
                    folder / f"{each}.png"
                )
    (root / "train" / "cats" / "again.png").write_bytes((root / "train" / "cats" / "0.png").read_bytes())
    (root / "val" / "cats" / "known.png").write_bytes((root / "train" / "cats" / "1.png").read_bytes())
    (root / "test" / "dogs" / "cat.png").write_bytes((root / "test" / "cats" / "0.png").read_bytes())
    return root


@pytest.mark.timeout(100)
def test_it_shows_splits_classes_repeated_samples_and_a_batch(launch: Launch, pictures: Path, tmp_path: Path) -> None:
    words = ("data=imagefolder", f"data.root={pictures}", "data.size=8", "model=resnet8", "model.num_classes=3", "train.batch_size=8")
    done = launch("data", *words, f"runs_dir={tmp_path / 'runs'}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"data      data.imagefolder.ImageFolder in {pictures}"
    assert lines[1] == "sample    (3, 8, 8) float32, () int64: 776 bytes"
    assert lines[2].startswith("loader    data.resident.Resident: ")
    assert lines[3] == "epoch     4 steps of 8 samples"
    for line in (
        *("train             37 samples", "val               10 samples", "test              10 samples"),
        *("class     train       val      test", "boats        12         3         3", "cats         13         4         3"),
        "train: 1 samples are there before",
        "val: 1 samples are in an earlier split too: what is said of them is no test",
        "test: 1 samples are there before",
        "test: 1 of those have another label there",
        "data.duplicates=drop leaves out those of the 3 that are the same to the byte; refuse names the first",
    ):
        assert line in lines
    picture = tmp_path / "runs" / ".data" / "run.png"
    assert lines[-1] == f"a batch as it is trained on: {picture}"
    with Image.open(picture) as drawn:
        assert drawn.size == (80, 10), "a row of eight"
    assert [place.name for place in (tmp_path / "runs").iterdir()] == [".data"], "no run"


@pytest.mark.timeout(100)
def test_what_cannot_be_trained_on_is_one_line(launch: Launch, pictures: Path, tmp_path: Path) -> None:
    folder = ("data=imagefolder", f"data.root={pictures}", "model=resnet8", f"runs_dir={tmp_path / 'runs'}")
    for words, said in (
        (folder, "model.num_classes=10: the data have 3 classes; type model.num_classes=3"),
        ((*folder, "model.num_classes=3", "train.batch_size=64"), "the training part has 37 samples, less than one step"),
        ((*folder, "data.root=/nowhere"), "data.root=/nowhere: no such folder"),
        (("-m", *folder), "data shows one run; leave out --multirun"),
    ):
        done = launch("data", *words)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert said in done.stderr
    torn = tmp_path / "torn"
    shutil.copytree(pictures, torn)
    for name in ("boats", "cats", "dogs"):
        (torn / "train" / name / "0.png").write_bytes(b"torn")
    for loader in (("loader=workers", "loader.num_workers=0"), ()):
        done = launch("data", *folder, f"data.root={torn}", "model.num_classes=3", "train.batch_size=8", *loader)
        assert (done.returncode, done.stdout) == (2, "")
        *before, said = done.stderr.splitlines()
        assert all("loader=resident reads each sample once" in line for line in before), "no traceback"
        assert "/0.png is no picture that can be read (of no kind that is read: JPEG, PNG and such)" in said
        assert said.endswith("take it away, or leave such pictures out: data.max_corrupt=10"), "what to do is not cut off"
    assert not (tmp_path / "runs").exists()


def test_of_many_classes_the_rarest_and_the_most_frequent_are_shown() -> None:
    splits: list[dict[str, Any]] = [{"name": "train", "labels": {str(label): 100 + label for label in range(50)}}]
    lines = list(_classes(splits, [f"n{label}" for label in range(40)]))
    assert lines[0] == "\n50 classes; the rarest 10 and the most frequent:"
    assert [line.split()[0] for line in lines[2:]] == [*(f"n{label}" for label in range(10)), *(str(label) for label in range(40, 50))]
    assert list(_classes([{"name": "train", "labels": {}}], [])) == []


def test_names_and_labels_may_be_anything() -> None:
    splits: list[dict[str, Any]] = [{"name": "train", "labels": {"-100": 2, "0": 3, "1": 4, "2": 5}}]
    lines = list(_classes(splits, ["a\nb", "\x1b[31mred"]))
    assert [line.split()[0] for line in lines[1:]] == ["-100", "a\\nb", "\\x1b[31mred", "2"], "no name is counted from the end"


class Part(list[Any]):
    samples = 4


@pytest.mark.parametrize(
    ("batch", "labels", "repeated"),
    [
        ((torch.arange(4).bfloat16() // 2, torch.arange(4)), 4, 2),
        ((torch.zeros(4, 2, dtype=torch.float8_e4m3fn), torch.zeros(4, dtype=torch.int64)), 1, 3),
        ((torch.zeros(4, 2, dtype=torch.bool),), 0, 3),
        ((torch.zeros(4, 1), torch.eye(4), torch.zeros(4, dtype=torch.int64)), 1, 0),
        ({"label": torch.zeros(4, dtype=torch.int64), "image": torch.eye(4)}, 0, 0),
        ({"image": torch.eye(4), "label": torch.zeros(4, dtype=torch.int64)}, 1, 0),
        ((torch.zeros(4, 3), torch.rand(4)), 0, 3),
    ],
)
def test_a_sample_is_there_before_where_all_of_it_is(batch: Any, labels: int, repeated: int) -> None:
    seen = look._split("train", Part([batch]), {})
    assert (seen["looked_at"], len(seen["labels"]), seen["repeated"]) == (4, labels, repeated)


def test_what_a_task_cannot_show_is_said(tmp_path: Path) -> None:
    page = look.Page(tmp_path / "page.png")
    look._show(object(), page, {})
    assert page.texts == ["object shows nothing of a batch (AttributeError: 'object' object has no attribute 'show_batch')"]
    with pytest.raises(ConfigError, match="data: a sample has no numbers in it"):
        look._of_batch(())


def test_ctrl_c_is_no_traceback(tmp_path: Path) -> None:
    work = "def work(given): raise KeyboardInterrupt\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom launcher.train.prepare import served\n{work}sys.exit(served(work))"],
        input=json.dumps({"asked": [], "directory": str(tmp_path), "path": sys.path}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
