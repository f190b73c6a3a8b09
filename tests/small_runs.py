"""Runs of shipped experiments on small data, for a few steps: trained once for all tests, whichever process of pytest they are in."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drawn_voc
from processes import finish

SPLIT = {"cifar": "test", "digits": "test", "detection": "test", "shakespeare": "val", "regression": "test"}
"""That `evaluate` takes."""
_EVALUATED = {"digits": ("robustness=true",)}


class SmallRuns:
    """`home` is one for all processes of pytest; what is asked for first is made first, and others wait for it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env: dict[str, Any] = {"LAUNCHER_CACHE": str(home / "cache")}

    def cifar(self, data: Path) -> Path:
        """As `make run` trains it, on the real data: minutes."""
        self.env["LAUNCHER_DATA"] = str(data.parent)
        return self.trained("cifar", timeout=1500)

    def trained(self, exp: str, timeout: float = 100) -> Path:
        """Its directory. Nobody writes into it, but an evaluation."""
        run = self.home / "runs" / exp / "a"
        with self._alone(exp):
            if not (run / "summary.json").exists():
                words = [f"+exp={exp}", "id=a", *self._words(exp)]
                made = finish(self.home, words, timeout, **self.env)
                assert made.returncode == 0, made.stderr
        return run

    def evaluated(self, exp: str) -> Path:
        """The same, with an evaluation by two processes."""
        run = self.trained(exp)
        with self._alone(exp):
            if not (run / "evaluation" / SPLIT[exp]).exists():
                words = ["evaluate", str(run), "cluster.processes_per_node=2", *_EVALUATED.get(exp, ())]
                answer = finish(self.home, words, **self.env)
                assert answer.returncode == 0, answer.stderr
        return run

    def exported(self, exp: str) -> Path:
        """Its export, without ONNX: to be read, and copied where it is harmed."""
        run, to = self.trained(exp), self.home / f"export_{exp}"
        with self._alone(exp):
            if not to.exists():
                answer = finish(self.home, ["export", str(run), "onnx=false", f"to={to}"], **self.env)
                assert answer.returncode == 0, answer.stderr
        return to

    def _words(self, exp: str) -> list[str]:
        if exp == "cifar":
            return []
        still = ["train.round_batch=false", "train.precision=fp32"]
        if exp == "detection":
            root = drawn_voc.write(self.home / "drawn", 31, {"train": range(14), "val": range(14, 22), "test": range(22, 31)})
            small = ["model.depths=[1,1,1,1]", "model.width=8", "model.channels=16", "data.size=64", "model.num_classes=2"]
            return [*still, *small, f"data.root={root}", "train.steps=4", "train.batch_size=4"]
        if exp == "shakespeare":
            text = self.home / "york.txt"
            text.write_text("Now is the winter of our discontent made glorious summer by this sun of York.\n" * 60)
            small = ["model.dim=32", "model.layers=2", "model.kv_heads=2", "task.sample=30", "data.length=32"]
            return [*still, *small, f"data.path={text}", "train.steps=4", "train.batch_size=8"]
        return [*still, "train.epochs=8" if exp == "digits" else "train.steps=4"]

    @contextlib.contextmanager
    def _alone(self, exp: str) -> Iterator[None]:
        self.home.mkdir(exist_ok=True)
        with (self.home / f"{exp}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def home_of(base: Path) -> Path:
    """Of one session: xdist gives each of its processes a folder of its own below one."""
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small_runs"
