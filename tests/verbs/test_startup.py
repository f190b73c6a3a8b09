"""No verb that does not train may import torch, accelerate or numpy; `--help`, `status` and `logs` need no Hydra either.

The proof is a package of that name, first on the path, that raises when it is imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import Answer, Launch, Sweep

from launcher.rundir.rundir import RunDir

HEAVY = ("torch", "accelerate", "numpy", "safetensors")
CONFIG = ("hydra", "omegaconf", "yaml")


@pytest.fixture
def poison(tmp_path: Path, environment: dict[str, str]) -> Callable[..., dict[str, str]]:
    """Environment in which an import of any of the names fails with its name on stderr."""

    def call(*names: str) -> dict[str, str]:
        folder = tmp_path / "poison"
        for name in names:
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')\n")
        return {"PYTHONPATH": f"{folder}:{environment['PYTHONPATH']}"}

    return call


@pytest.fixture
def a_run(command: Callable[..., Answer], toy_words: tuple[str, ...]) -> RunDir:
    """A run directory as a finished run leaves it, made by hand, in the place where `status` looks."""
    answer = command("plan", *toy_words, "id=first", "runs_dir=runs")
    plan = json.loads(answer.out)
    here = RunDir(plan["run_dir"])
    here.attempt(0).mkdir(parents=True)
    here.plan.write_text(answer.out)
    here.rank_log(0, 0).write_text("step 1/2  50.0%  loss 1.5\nthe last line\n")
    here.metrics.write_text(json.dumps({"step": 2, "split": "train", "loss": 1.25}) + "\n")
    here.summary.write_text(json.dumps({"state": "done", "attempt": 0, "test_accuracy": 0.5}))
    here.log_event("started", attempt=0, steps=2)
    return here


@pytest.mark.parametrize("verb", ["render", "plan"])
def test_render_and_plan_import_no_torch(verb: str, toy: Launch, poison: Callable[..., dict[str, str]]) -> None:
    done = toy(verb, env=poison(*HEAVY))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "launcher.train.torchrun" in done.stdout if verb == "render" else json.loads(done.stdout)["name"] == "toy"


def test_the_poison_works(toy: Launch, poison: Callable[..., dict[str, str]]) -> None:
    done = toy("plan", env=poison("hydra"))
    assert done.returncode == 1
    assert "hydra was imported" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--help",), "usage: python -m launcher"),
        (("status",), "toy/first  done"),
        (("status", "first"), "started  attempt=0, steps=2"),
        (("logs", "toy"), "the last line"),
    ],
    ids=["--help", "status", "status RUN", "logs RUN"],
)
def test_help_status_and_logs_import_neither_hydra_nor_torch(
    words: tuple[str, ...], said: str, a_run: RunDir, launch: Launch, poison: Callable[..., dict[str, str]]
) -> None:
    done = launch(*words, env=poison(*HEAVY, *CONFIG))
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert done.stderr == ""


def test_help_names_every_verb_group_and_choice(launch: Launch) -> None:
    text = launch("--help").stdout
    for word in (
        "run",
        "render",
        "plan",
        "resume RUN",
        "status [RUN]",
        "logs RUN",
        "tensorboard [RUN]",
        "resnet8, ",
        "cifar10",
        "ddp",
        "local",
        "-m +exp=",
    ):
        assert word in text
    assert launch("help").stdout == launch("-h").stdout == launch("run", "--help").stdout == text


def test_the_parent_of_a_run_never_imports_torch(sweep: Sweep) -> None:
    assert [json.loads(run.summary.read_text())["state"] for run in sweep.runs] == ["failed", "done"]  # it did start, and watch, and report
    assert sweep.heavy == ""
