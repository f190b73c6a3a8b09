"""One whole run of the toy, looked at from every side."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from processes import events, finish, lines, toy_words
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launcher.train.schedule import WSD, Constant, Cosine, InverseSqrt, Linear, OneCycle, Step


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def done(home: Path) -> subprocess.CompletedProcess[str]:
    """40 steps in 4 epochs on two processes, with accumulation and clipping."""
    words = ("id=whole", "cluster.processes_per_node=2", "train.accumulate=2", "train.clip_norm=1", "train.save_every=15")
    return finish(home, toy_words(home / "runs", *words))


@pytest.fixture(scope="module")
def run(home: Path, done: subprocess.CompletedProcess[str]) -> Path:
    assert done.returncode == 0, done.stderr
    return home / "runs" / "toy" / "whole"


def charts(run: Path) -> EventAccumulator:
    board = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    board.Reload()
    return board


def test_the_last_line_of_stdout_is_the_run_directory(done: subprocess.CompletedProcess[str], run: Path) -> None:
    assert done.stdout.splitlines()[-1] == str(run)
    assert done.stderr == ""
    for word in ("test accuracy", "samples/s", "tensorboard"):
        assert word in done.stdout


def test_metrics_have_each_step_once_and_round_trip(run: Path) -> None:
    train = [line for line in lines(run / "metrics.jsonl") if line["split"] == "train"]
    assert [line["step"] for line in train] == list(range(1, 41))
    assert [line["samples"] for line in train] == list(range(64, 41 * 64, 64))
    assert {"loss", "accuracy", "lr", "grad_norm", "samples_per_second", "step_seconds", "data_seconds", "memory_bytes"} <= train[0].keys()
    for line in (run / "metrics.jsonl").read_text().splitlines():
        assert json.dumps(json.loads(line)) == line
    assert [line["step"] for line in lines(run / "metrics.jsonl") if line["split"] == "val"] == [10, 20, 30, 40]


def test_evaluation_counts_every_sample_once_though_no_rank_has_as_many_as_another(run: Path) -> None:
    assert [line["samples"] for line in lines(run / "metrics.jsonl") if line["split"] != "train"] == [101] * 5


def test_the_summary_closes_the_run(run: Path) -> None:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    assert summary["state"] == "done"
    assert (summary["steps"], summary["samples"], summary["attempts"]) == (40, 2560, 1)
    assert summary["test_accuracy"] > 0.9
    assert summary["seconds"] > 0
    test_line = next(line for line in lines(run / "metrics.jsonl") if line["split"] == "test")
    assert summary["test_accuracy"] == test_line["accuracy"]
    val_line = [line for line in lines(run / "metrics.jsonl") if line["split"] == "val"][-1]
    assert {"val_accuracy": val_line["accuracy"], "val_loss": val_line["loss"]}.items() <= summary.items()
    assert "val_samples" not in summary


def test_checkpoints_are_kept_as_asked_with_one_at_the_end(run: Path) -> None:
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step_000000030", "step_000000040"]
    assert {path.name for path in (run / "checkpoints" / "step_000000040").iterdir()} >= {"rank_0.safetensors", "rank_1.safetensors"}


def test_tensorboard_shows_the_same_numbers_each_step_once(run: Path) -> None:
    board = charts(run)
    truth = {line["step"]: line for line in lines(run / "metrics.jsonl") if line["split"] == "train"}
    for tag, name in (("train/loss", "loss"), ("train/lr", "lr"), ("train/grad_norm", "grad_norm"), ("speed/samples_per_second",) * 2):
        points = board.Scalars(tag)
        assert [point.step for point in points] == sorted(truth)
        key = name.rpartition("/")[2]
        assert [point.value for point in points] == pytest.approx([truth[point.step][key] for point in points], rel=1e-6)
    assert {"time/step_seconds", "time/data_seconds", "time/data_share", "memory/memory_bytes", "val/accuracy", "test/accuracy"} <= set(
        board.Tags()["scalars"]
    )
    assert {"train/first_batch", "val/confusion", "test/confusion"} <= set(board.Tags()["images"])
    assert {"config/text_summary"} <= set(board.Tags()["tensors"])
    assert "_hparams_/session_start_info" in board.summary_metadata
    assert [path for path in (run / "tb").iterdir() if path.is_dir()] == []


def test_every_file_is_private(run: Path) -> None:
    assert run.stat().st_mode & 0o777 == 0o700
    open_to_others = [path for path in run.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o077]
    assert open_to_others == []


def test_each_rank_has_its_own_log(run: Path) -> None:
    assert "step 40/40" in (run / "attempts" / "latest" / "rank_0.log").read_text()
    assert (run / "attempts" / "000" / "rank_1.log").exists()


def test_the_same_command_with_the_same_id_does_nothing_to_a_finished_run(home: Path, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    again = finish(home, ["resume", str(run)])
    assert again.returncode == 0
    assert "done already" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_accumulation_gives_the_gradient_of_the_whole_batch(home: Path) -> None:
    """Without norms and dropout the sum over micro-batches is the batch: the same losses, up to the order of additions."""
    seen = []
    for parts in (1, 4):
        words = (
            f"id=parts{parts}",
            f"train.accumulate={parts}",
            "model.dropout=0",
            "model._target_=toyproject.net.Linear",
            "train.steps=8",
        )
        assert finish(home, toy_words(home / "runs", *words, "~model.width", "~model.fill")).returncode == 0
        path = home / "runs" / "toy" / f"parts{parts}" / "metrics.jsonl"
        seen.append([line["loss"] for line in lines(path) if line["split"] == "train"])
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)
    assert len(seen[0]) == 8


def test_the_ledger_tells_the_story(run: Path) -> None:
    told = [event["event"] for event in lines(run / "events.jsonl")]
    assert [event for event in told if event != "slow_rank"] == ["submitted", "started", "done"], "a busy machine may have a slow one"
    assert events(run, "started")[0]["steps"] == 40


@pytest.mark.parametrize(
    "schedule", [Constant(warmup=0.1), Cosine(warmup=0.1), Linear(warmup=0.1), WSD(warmup=0.1), Step(warmup=0.1), OneCycle(peak=0.2)]
)
def test_schedules_are_pure_warm_up_and_stay_within_bounds(schedule: Any) -> None:
    factors = [schedule(step, 100) for step in range(100)]
    assert factors == [schedule(step, 100) for step in range(100)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] < factors[5] < factors[9]
    assert max(factors) == 1
    assert factors[-1] == pytest.approx({Constant: 1.0, Step: 0.01}.get(type(schedule), 0.0), abs=1e-12)
    assert 0 <= schedule(0, 1) <= 1


def test_schedules_are_what_their_papers_say() -> None:
    stable = [WSD(warmup=0.1, decay=0.2, final=0.5)(step, 100) for step in range(100)]
    assert stable[9:80] == [1.0] * 71
    assert stable[80:] == pytest.approx([1 - 0.5 * number / 20 for number in range(1, 21)])
    assert [InverseSqrt(4)(step, 9) for step in (0, 3, 15)] == pytest.approx([0.25, 1.0, 0.5])
    assert [Step((0.5, 0.9), 0.1)(step, 10) for step in (4, 5, 8, 9)] == pytest.approx([1.0, 0.1, 0.1, 0.01])
    assert [Linear(warmup=0.0, final=0.2)(step, 4) for step in range(4)] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    with pytest.raises(ValueError, match=r"schedule\.decay=0\.6: with schedule\.warmup=0\.5 they are more than the run"):
        WSD(warmup=0.5, decay=0.6)
