"""A detector through the real launcher: on a set that nobody has seen, by its directory; on blood cells, to figures (`make boxes`)."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import drawn_voc
import pytest
from helpers import REPO, Answer, Command
from processes import finish, lines, losses
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SMALL = ("model.depths=[1,1,1,1]", "model.width=8", "model.channels=16", "data.size=64", "loader.eval_batch_size=4", "train.precision=fp32")
STEPS = ("train.steps=8", "train.batch_size=4", "train.log_every=1", "train.eval_every=4", "train.round_batch=false")
REAL = REPO.parent / "shared" / "data" / "bccd"


def train(home: Path, name: str, *words: str, timeout: float = 100) -> tuple[Path, dict[str, Any], float]:
    began = time.monotonic()
    done = finish(
        home, ["+exp=detection", *words, f"id={name}", f"runs_dir={home / 'runs'}"], timeout=timeout, LAUNCHER_CACHE=str(home / "cache")
    )
    assert done.returncode == 0, done.stderr
    run = home / "runs" / "detection" / name
    return run, json.loads((run / "summary.json").read_text()), time.monotonic() - began


@pytest.fixture
def real() -> Path:
    if not (REAL / "Annotations").is_dir():
        pytest.skip(f"the real BCCD is not in {REAL}")
    return REAL


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_set_that_nobody_has_seen_is_trained_by_its_directory_and_two_processes_are_one(tmp_path: Path) -> None:
    """13 pictures to validate on: unequal counts."""
    root = drawn_voc.write(tmp_path / "mine", 31, {"train": range(14), "val": range(14, 27), "test": range(27, 31)})
    words = (*SMALL, *STEPS, f"data.root={root}", "model.num_classes=2")
    one, first, _ = train(tmp_path, "one", *words)
    two, second, _ = train(tmp_path, "two", *words, "cluster.processes_per_node=2")
    by_step, others = losses(one), losses(two)
    assert len(by_step) == 8
    assert max(abs(others[step] - loss) / loss for step, loss in by_step.items()) < 1e-5
    assert by_step[8] < by_step[1]
    for key in ("val_loss", "val_map50", "val_map", "test_map50"):
        assert second[key] == pytest.approx(first[key], rel=1e-5, abs=1e-5)
    assert [line["samples"] for line in lines(two / "metrics.jsonl") if line["split"] in ("val", "test")] == [13, 13, 4]
    charts = EventAccumulator(str(two / "tb"), size_guidance={"images": 0, "tensors": 0})
    charts.Reload()
    assert {"train/first_batch", "val/found", "test/found"} <= {*charts.Tags()["images"]}
    assert any("average_precision" in tag for tag in charts.Tags()["tensors"])


def test_a_coco_set_composes_with_the_same_experiment(tmp_path: Path, command: Command) -> None:
    root = drawn_voc.write_coco(tmp_path / "mine", 12)
    words = ("+exp=detection", "data=coco", f"data.root={root}", "data.val_json=null", *SMALL, f"runs_dir={tmp_path / 'runs'}")
    said = refused_lines(command(*words, "model.num_classes=3"), tmp_path)
    assert said == ["launcher: model.num_classes=3: the data have 2 classes; type model.num_classes=2"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("data.root=null", "type data.root=")),
        (("data.root=mine", "model.num_classes=7"), ("model.num_classes=7: the data have 2 classes; type model.num_classes=2",)),
        (("data.root=mine", "data.outsides=clip"), ("data.outsides: no such key; did you mean data.outside?",)),
        (("data.root=mine", "data.classes=cat"), ("data.classes=cat: not possible",)),
    ],
)
def test_what_cannot_be_is_refused_before_the_start(
    words: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path, command: Command
) -> None:
    drawn_voc.write(tmp_path / "mine", 4)
    (said,) = refused_lines(command("+exp=detection", *SMALL, f"runs_dir={tmp_path / 'runs'}", *words), tmp_path)
    for part in parts:
        assert part in said


def refused_lines(answer: Answer, home: Path) -> list[str]:
    """What is said beside what the data say of themselves; nothing is left behind."""
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err
    assert not [*(home / "runs").rglob("config.yaml")]
    return [line for line in answer.lines if line.startswith("launcher: ")]


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_pictures_of_blood_cells_are_learnt_by_heart(tmp_path: Path, real: Path) -> None:
    root = tmp_path / "eight"
    names = (real / "ImageSets" / "Main" / "train.txt").read_text().split()[:8]
    for folder, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (root / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(real / folder / f"{name}.{suffix}", root / folder)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for part in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names))
    plain = ("data.scale=0", "data.colour=0", "data.flip=false", "data.test=0", "train.ema_decay=0")
    steps = ("train.steps=600", "train.batch_size=4", "train.eval_every=0")
    _, summary, seconds = train(tmp_path, "eight", f"data.root={root}", *plain, *steps, timeout=850)
    print(f"8 pictures: mAP@0.5 {summary['val_map50']:.3f}, mAP@[.5:.95] {summary['val_map']:.3f} in {seconds:.0f} s")
    assert summary["val_map50"] >= 0.9


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(3200)
def test_blood_cells_are_found(tmp_path: Path, real: Path) -> None:
    _, summary, seconds = train(tmp_path, "bccd", f"data.root={real}", "data.max_corrupt=2", timeout=3100)
    print(f"BCCD, test: mAP@0.5 {summary['test_map50']:.3f}, mAP@[.5:.95] {summary['test_map']:.3f} in {seconds:.0f} s")
    assert summary["test_map50"] >= 0.7
