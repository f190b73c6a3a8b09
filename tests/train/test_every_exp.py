"""Every experiment that ships, for a few steps: by one process, and by two under every strategy, which train or are refused before a start.

`make exps` has all pairs; of an experiment CI runs one process and one strategy, another for each.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import drawn_voc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Answer, refused
from PIL import Image
from processes import REPO, finish, losses

Command = Callable[..., Answer]
EXPS = sorted(path.stem for path in (REPO / "conf" / "exp").glob("*.yaml"))
STRATEGIES = sorted(path.stem for path in (REPO / "conf" / "strategy").glob("*.yaml"))
GIVEN = {"cp": ("strategy.on_cpu=true",), "hsdp": ("strategy.dp_shard=2",), "tp": ("strategy.tp=2",)}
"""What a strategy is told of two processes on a CPU."""
SHORT = (
    "train.batch_size=8",
    "train.steps=3",
    "train.log_every=1",
    "train.precision=fp32",
    "loader.eval_batch_size=200",
    "id=a",
)
LANGUAGE = ("data.length=32", "model.dim=32", "model.layers=2", "model.heads=4", "model.hidden=64", "model.vocab_size=256")
"""Texts as bytes, and a model that has the form of the large ones."""
Words = Callable[[Path], tuple[str, ...]]


def written(root: Path) -> str:
    (root / "text.txt").write_text("A line of a play, and the next one.\n" * 400)
    return f"data.path={root / 'text.txt'}"


def coloured(root: Path) -> str:
    for number, name in enumerate(("boats", "cats", "dogs")):
        (root / "pictures" / name).mkdir(parents=True)
        for each in range(12):
            Image.new("RGB", (30, 24), (20 * each, 100 * number, 90)).save(root / "pictures" / name / f"{each}.png")
    return f"data.root={root / 'pictures'}"


def images(root: Path, name: str, image: str, side: tuple[int, ...], **labels: int) -> str:
    """Noise in Hugging Face's schema, as the set of that name; `labels`: columns, and how many kinds each has."""
    draw, kind = np.random.default_rng(0), pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for part, count in (("train", 240), ("test", 40)):
        rows = []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, side, dtype=np.uint8)).save(file, "PNG")
            rows.append({"bytes": file.getvalue(), "path": None})
        columns = {column: pa.array([i % kinds for i in range(count)], pa.int64()) for column, kinds in labels.items()}
        path = root / "images" / name / f"{part}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({image: pa.array(rows, kind), **columns}), path)
    return f"data.root={root / 'images'}"


SMALL: dict[str, Words] = {
    "cifar": lambda _: ("model=resnet8", "model.groups=4", "data.source=standin", "data.train_samples=200"),
    "cifar100": lambda root: (
        images(root, "cifar100", "img", (32, 32, 3), fine_label=100, coarse_label=20),
        *("model=resnet8", "model.groups=4", "model.num_classes=100", "data.validation=40"),
    ),
    "detection": lambda root: (
        f"data.root={drawn_voc.write(root / 'voc', 24)}",
        *("data.size=64", "model.num_classes=2", "model.width=8", "model.channels=16"),
    ),
    "digits": lambda _: ("model.dropout=0",),
    "gpt2_124m": lambda root: (written(root), *LANGUAGE),
    "imagenet": lambda root: (
        coloured(root),
        *("model=resnet18", "model.width=8", "model.groups=4", "model.num_classes=3", "data.size=32"),
        *("loader.num_workers=1", "optim.lr=0.02"),
    ),
    "llama_1b": lambda root: (written(root), *LANGUAGE, "model.kv_heads=2"),
    "llama_8b": lambda root: (written(root), *LANGUAGE, "model.kv_heads=2"),
    "matmul": lambda _: (),
    "mnist": lambda root: (images(root, "mnist", "image", (28, 28), label=10), "data.validation=40"),
    "regression": lambda _: (),
    "shakespeare": lambda root: (written(root), *LANGUAGE),
}
"""What each is shrunk by; the rest is as it ships. A new experiment needs a line."""
ONE: dict[str, dict[int, float]] = {}
"""The losses of one process, once it has trained."""
FAR = {"mnist": 0.05}
"""Relative; BatchNorm sees the half of a batch."""
NEEDS = {"digits": "sklearn", "regression": "sklearn"}


def words(exp: str, home: Path) -> list[str]:
    assert exp in SMALL, f"say in SMALL of {Path(__file__).name} how +exp={exp} becomes small"
    if exp in NEEDS:
        pytest.importorskip(NEEDS[exp], reason="an extra")
    home.mkdir()
    return [f"+exp={exp}", *SHORT, *SMALL[exp](home), f"runs_dir={home / 'runs'}"]


def split(strategy: str, accumulate: int = 2) -> list[str]:
    stages = (f"train.accumulate={accumulate}",) if strategy == "pp" else ()
    return [f"strategy={strategy}", *GIVEN.get(strategy, ()), *stages, "cluster.processes_per_node=2"]


def trained(exp: str, home: Path, given: list[str]) -> dict[int, float]:
    done = finish(home, given, timeout=100, LAUNCHER_CACHE=str(home / "cache"))
    assert done.returncode == 0, done.stderr
    (run,) = (home / "runs").glob(f"{exp}*/a")
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["state"], summary["steps"]) == ("done", 3)
    assert math.isfinite(summary["val_loss"])
    assert losses(run).keys() == {1, 2, 3}
    return losses(run)


def pairs() -> list[object]:
    """In CI each experiment meets one strategy, and each strategy some experiment."""
    light = {(exp, STRATEGIES[number % len(STRATEGIES)]) for number, exp in enumerate(EXPS)}
    marked = {True: (), False: (pytest.mark.full,)}
    return [pytest.param(exp, strategy, marks=marked[(exp, strategy) in light]) for exp in EXPS for strategy in STRATEGIES]


@pytest.mark.slow
@pytest.mark.timeout(250)
@pytest.mark.parametrize(("exp", "strategy"), pairs())
def test_it_trains_alike_on_two_processes_or_is_refused(exp: str, strategy: str, tmp_path: Path, command: Command) -> None:
    if exp not in ONE:
        ONE[exp] = trained(exp, tmp_path / "one", words(exp, tmp_path / "one"))
    given = words(exp, tmp_path / "two")
    answer = command("plan", *given, *split(strategy))
    if answer.code:
        refused(answer, 2, "; ")
        print(answer.err)
        return
    two = trained(exp, tmp_path / "two", [*given, *split(strategy)])
    assert two == pytest.approx(ONE[exp], rel=FAR.get(exp, 2e-4))
