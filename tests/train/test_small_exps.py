"""The small experiments that ship, through the real launcher: they reach what their yamls say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import finish
from safetensors.numpy import load_file

from data.product import Product

REPO = Path(__file__).resolve().parents[2]
ALL = ("train.batch_size=1000", "train.steps=5")
OPTIMIZERS = {
    "adam": (),
    "sgd": ("optim=sgd", "optim.lr=0.1", "optim.weight_decay=0"),
    "lbfgs": ("optim=lbfgs", "optim.lr=1", *ALL),
}


def train(home: Path, *words: str, processes: int = 1, seconds: float = 250) -> tuple[dict[str, Any], Path]:
    home.mkdir(exist_ok=True)
    given = (*words, f"runs_dir={home / 'runs'}", "id=a", f"cluster.processes_per_node={processes}")
    done = finish(home, [*given], timeout=seconds, LAUNCHER_CACHE=str(home / "cache"))
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    summary = json.loads((run / "summary.json").read_text())
    print(
        words, f"{processes} processes:", {name: value for name, value in summary.items() if name.startswith("test_")}, summary["seconds"]
    )
    return summary, run


def off(run: Path) -> float:
    """By how much the matrix that was found is."""
    newest = sorted((run / "checkpoints").iterdir())[-1]
    return float(np.abs(load_file(newest / "model.safetensors")["head.weight"] - Product().matrix).max())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", pytest.param("sgd", marks=pytest.mark.full)])
def test_a_matrix_is_found_again_by_one_process_and_by_two(tmp_path: Path, optimizer: str) -> None:
    ends = []
    for processes in (1, 2):
        summary, run = train(tmp_path / str(processes), "+exp=matmul", *OPTIMIZERS[optimizer], processes=processes, seconds=120)
        assert off(run) < 1e-4
        ends.append(summary)
    one, two = ends
    assert one["steps"] == two["steps"]
    assert max(one["val_rmse"], two["val_rmse"]) < 1e-4
    assert one["test_r2"] == pytest.approx(two["test_r2"], abs=1e-7)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["mlp", pytest.param("cnn", marks=pytest.mark.full)])
def test_digits_reach_98_percent(tmp_path: Path, model: str) -> None:
    pytest.importorskip("sklearn", reason="needs the extra: pip install scikit-learn")
    summary, _ = train(tmp_path, "+exp=digits", f"model={model}")
    assert summary["test_accuracy"] >= 0.98


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_diabetes_are_as_near_as_least_squares(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra: pip install scikit-learn")
    one, two = (train(tmp_path / str(processes), "+exp=regression", processes=processes)[0] for processes in (1, 2))
    assert one["test_rmse"] < 58
    assert one["test_r2"] > 0.4
    assert one["test_rmse"] == pytest.approx(two["test_rmse"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_csv_trains_without_code_and_a_model_for_another_is_refused(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [f"{a:.3f},{'xy'[int(b > 0)]},{'far' if a + b > 0 else 'near'}" for a, b in draw.normal(0, 1, (300, 2))]
    (tmp_path / "a.csv").write_text("\n".join(["width,side,place", *rows]) + "\n")
    words = (f"data.path={tmp_path / 'a.csv'}", "data.target=place", "data=table", "model=mlp", "train.batch_size=24", "train.epochs=20")
    refused = finish(tmp_path, [*words, f"runs_dir={tmp_path / 'runs'}", "model.num_classes=2"])
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith("model.in_features=64: a sample of the data has 3 numbers; type model.in_features=3")
    summary, run = train(tmp_path, *words, "model.in_features=3", "model.num_classes=2", "optim.lr=0.05")
    assert summary["test_accuracy"] > 0.7
    assert (run / "tb").is_dir()


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mnist_reaches_99_percent(tmp_path: Path) -> None:
    place = REPO.parent / "shared" / "data" / "mnist"
    if not (place / "mnist").is_dir():
        pytest.skip(f"the real MNIST is not in {place}")
    summary, _ = train(tmp_path, "+exp=mnist", f"data.root={place}", seconds=800)
    assert summary["test_accuracy"] >= 0.992
