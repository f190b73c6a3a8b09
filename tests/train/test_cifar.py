"""The main job on the real CIFAR-10: to its end with one and two processes by `make accuracy`, three epochs of it by `make test-slow`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from processes import finish, lines

FLOOR = 0.82
FLOOR_OF_THREE_EPOCHS = 0.75
# Two accuracies on 10,000 images differ by 0.5 points (one sigma, p = 0.84) if two runs of one recipe are independent.
NOISE = 0.02


def train(home: Path, data: Path, processes: int, *more: str) -> dict[str, Any]:
    words = ["+exp=cifar", f"data.root={data}", f"runs_dir={home / 'runs'}", f"id=p{processes}", f"cluster.processes_per_node={processes}"]
    words += more
    began = time.monotonic()
    done = finish(home, words, timeout=1500)
    assert done.returncode == 0, done.stderr
    run = home / "runs" / "cifar" / f"p{processes}"
    assert done.stdout.splitlines()[-1] == str(run)
    summary = json.loads((run / "summary.json").read_text())
    print(
        f"{processes} processes: {summary['test_accuracy']:.2%} in {time.monotonic() - began:.0f} s, {summary['samples_per_second']:,.0f}/s"
    )
    tested = next(line for line in lines(run / "metrics.jsonl") if line["split"] == "test")
    assert tested["samples"] == 10_000
    return summary


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_epochs_of_cifar_reach_what_they_should(tmp_path: Path, shared_data: Path) -> None:
    assert train(tmp_path, shared_data, 2, "train.epochs=3")["test_accuracy"] >= FLOOR_OF_THREE_EPOCHS


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(3200)
def test_cifar_reaches_82_percent(tmp_path: Path, shared_data: Path) -> None:
    two = train(tmp_path, shared_data, 2)
    assert two["test_accuracy"] >= FLOOR
    one = train(tmp_path, shared_data, 1)
    assert one["test_accuracy"] >= FLOOR
    assert abs(one["test_accuracy"] - two["test_accuracy"]) <= NOISE
    assert one["samples"] == two["samples"]
    assert one["steps"] == two["steps"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_images_over_three_processes_are_counted_once(tmp_path: Path, shared_data: Path) -> None:
    words = ["+exp=cifar", f"data.root={shared_data}", f"runs_dir={tmp_path / 'runs'}", "id=p3", "train.steps=2", "train.batch_size=48"]
    done = finish(tmp_path, [*words, "cluster.processes_per_node=3"], timeout=200)
    assert done.returncode == 0, done.stderr
    counted = {line["split"]: line["samples"] for line in lines(tmp_path / "runs" / "cifar" / "p3" / "metrics.jsonl")}
    assert counted["val"] == 2_000
    assert counted["test"] == 10_000


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_files_or_network_the_stand_in_is_trained_and_says_so(tmp_path: Path) -> None:
    words = ["+exp=cifar", f"runs_dir={tmp_path / 'runs'}", "id=a", "train.steps=20"]
    done = finish(tmp_path, words, timeout=200, HF_HUB_OFFLINE="1", LAUNCHER_DATA="", LAUNCHER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "NOT CIFAR-10's" in done.stderr
    assert "STAND-IN" in done.stdout
    run = tmp_path / "runs" / "cifar-standin" / "a"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["name"] == "cifar-standin"
    assert summary["data_is_standin"] is True
    refused = finish(tmp_path, [*words, "data.offline=error"], HF_HUB_OFFLINE="1", LAUNCHER_DATA="", LAUNCHER_CACHE=str(tmp_path / "other"))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "data.root=" in refused.stderr
