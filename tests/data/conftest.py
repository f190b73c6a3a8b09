"""Tiny data in CIFAR-10's schema, and a place where nothing of the user's is read or written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
FILES = {"train": "plain_text/train-00000-of-00001.parquet", "test": "plain_text/test-00000-of-00001.parquet"}


@pytest.fixture(autouse=True)
def _nothing_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("HF_", "LAUNCHER_")) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("LAUNCHER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(REPO))


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(n: int, seed: int, size: int = 32) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.fixture
def images() -> Callable[..., np.ndarray]:
    """`images(n, seed, size=32)`: random pixels, (n, size, size, 3)."""
    return noise


@pytest.fixture
def write() -> Callable[..., Path]:
    """`write(path, images, labels)` or `write(path, table=…)`: a parquet file in CIFAR-10's schema, or of that table."""

    def call(
        path: Path, pixels: np.ndarray | list[bytes | None] = (), labels: list[int | None] = (), table: pa.Table | None = None
    ) -> Path:
        if table is None:
            encoded = [item if isinstance(item, bytes | None) else png(item) for item in pixels]
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            rows = [{"bytes": item, "path": f"{i}.png"} for i, item in enumerate(encoded)]
            table = pa.table({"img": pa.array(rows, kind), "label": pa.array(list(labels), pa.int64())})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        return path

    return call


@pytest.fixture
def root(tmp_path: Path, write: Callable[..., Path]) -> Path:
    """70 training and 23 test images of noise."""
    place = tmp_path / "tiny"
    for seed, (part, n) in enumerate((("train", 70), ("test", 23))):
        write(place / FILES[part], noise(n, seed), [(3 * i) % 10 for i in range(n)])
    return place


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(code, *argv, env={})`: a Python process with `code`; killed at the end of the test if it still runs."""
    running: list[subprocess.Popen[str]] = []

    def call(code: str, *argv: object, env: dict[str, str] | None = None, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, *map(str, argv)], cwd=tmp_path, env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield call
    for process in running:
        process.kill()
        process.communicate()
