"""A run that begins with weights: what is refused before it starts, what is written down, and that they may go once it has saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_slurm import FakeSlurm
from helpers import ON_SLURM, Command, Launch, refused, refused_process
from pretrained_files import SIZES, published
from processes import finish, kill_tree, lines, losses, running, wait_for
from split_runs import SPLITS, language, trained, words

from launcher.clusters import submit
from launcher.compose.compose import compose
from launcher.compose.freeze import freeze
from launcher.config import pretrained

SHAPE = tuple(f"model.{key}={value}" for key, value in SIZES.items())
NEAR = 1e-5


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    published(tmp_path / "published")
    return tmp_path / "published"


def test_a_directory_that_is_not_there_is_refused_with_the_plan(command: Command, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    refused(command("plan", "+exp=shakespeare", f"model.weights={gone}"), 2, f"model.weights={gone}: there is no such directory; type")
    refused(command("plan", "+exp=shakespeare", f"model.weights={'x' * 300}"), 2, "there is no such directory")
    (tmp_path / "runs" / "shakespeare" / "a").mkdir(parents=True)
    answer = command("plan", "+exp=shakespeare", f"model.weights={gone}", f"runs_dir={tmp_path / 'runs'}", "id=a")
    assert answer.code == 0, "a run that is there has its own"


def test_a_relative_path_is_written_down_whole(command: Command, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.parent)
    monkeypatch.setenv("WEIGHTS_DIR", str(directory.parent))
    monkeypatch.setenv("HOME", str(directory.parent))
    assert _frozen("model.weights=published") == str(directory)
    assert _frozen("model.weights=~/published") == str(directory)
    assert _frozen("model.weights=${oc.env:WEIGHTS_DIR}/published") == "${oc.env:WEIGHTS_DIR}/published"
    assert _frozen() is None


def _frozen(*more: str) -> Any:
    found: list[str] = []
    compose(["+exp=shakespeare", *more], lambda config, overrides: found.append(freeze(config, overrides).config))
    return yaml.safe_load(found[0])["model"]["weights"]


def test_without_weights_a_node_is_as_it_was_but_for_them() -> None:
    inner = {"_target_": "models.transformer.Transformer", "weights": "/w", "dim": 8}
    outer = {"_target_": "models.resnet.resnet8", "weights": "/other", "parts": [inner, {"weights": "/mine"}]}
    assert pretrained.is_named(outer)
    assert pretrained.without(outer) == {**outer, "parts": [{**inner, "weights": None}, {"weights": "/mine"}]}
    assert not pretrained.is_named(pretrained.without(outer))


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_anything_starts(launch: Launch, tmp_path: Path, directory: Path) -> None:
    done = launch(*language(tmp_path, "other", f"model.weights={directory}", "model.kv_heads=4"))
    refused_process(done, 2, f"model.weights={directory}", "type model.kv_heads=2")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("split", ["fsdp(2)", *(pytest.param(name, marks=pytest.mark.full) for name in ("ddp(2)", "tp(2)", "pp(2)"))])
def test_every_split_begins_with_the_loss_of_one_process(tmp_path: Path, directory: Path, split: str) -> None:
    begun = (*SHAPE, f"model.weights={directory}", "train.steps=3")
    one, got = (losses(trained(tmp_path, name[:2], name, *begun)) for name in ("one", split))
    drawn = losses(trained(tmp_path, "drawn", "one", *SHAPE, "train.steps=1"))
    assert got[1] == pytest.approx(one[1], rel=NEAR)
    assert got[3] == pytest.approx(one[3], rel=NEAR)
    assert drawn[1] != pytest.approx(one[1], rel=1e-3)
    print(f"{split}: the first loss is {abs(got[1] - one[1]) / one[1]:.1e} from one process's")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("split", [pytest.param("one", marks=pytest.mark.full), "fsdp(2)"])
def test_a_run_that_has_saved_goes_on_without_the_directory(tmp_path: Path, directory: Path, split: str) -> None:
    begun = (*SHAPE, f"model.weights={directory}", "train.steps=60", "train.save_every=5")
    whole = losses(trained(tmp_path, "whole", split, *begun))
    run = tmp_path / "runs" / "shakespeare" / "cut"
    with running(tmp_path, words(tmp_path, "cut", split, *begun)) as process:
        wait_for(lambda: any(path.name.startswith("step_") for path in (run / "checkpoints").glob("step_*")))
        kill_tree(process)
    assert max(losses(run)) < 60
    shutil.rmtree(directory)
    moved = SPLITS["fsdp(2)"] if split == "one" else ()
    done = finish(tmp_path, ["resume", str(run), *moved], timeout=200)
    assert done.returncode == 0, done.stderr
    got = losses(run)
    assert got.keys() == whole.keys()
    assert max(abs(got[step] - whole[step]) / whole[step] for step in whole) <= NEAR
    if not moved:
        assert got == whole
    assert json.loads((run / "summary.json").read_text())["state"] == "done"
    assert sum(line["event"] == "started" for line in lines(run / "events.jsonl")) == 2


@pytest.mark.slow
def test_before_it_has_saved_it_needs_the_directory(tmp_path: Path, directory: Path) -> None:
    run = trained(tmp_path, "first", "one", *SHAPE, f"model.weights={directory}", "train.steps=2")
    shutil.rmtree(run / "checkpoints")
    (run / "summary.json").unlink()
    shutil.rmtree(directory)
    done = finish(tmp_path, ["resume", str(run)])
    assert done.returncode == 2, done.stderr
    assert f"model.weights={directory}: there is no such directory" in done.stderr


def test_members_of_a_sweep_with_the_same_model_are_looked_at_once(
    command: Command, fake: FakeSlurm, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(submit, "try_model", lambda node: seen.append((node["weights"], fake.submitted)))
    monkeypatch.chdir(directory.parent)
    words = ("+exp=shakespeare", *ON_SLURM, "cluster.shared_filesystem=true", f"runs_dir={tmp_path / 'runs'}", "model.weights=published")
    answer = command("-m", *words, "seed=1,2", "model.layers=2,3")
    assert answer.code == 0, answer.err
    assert [weights for weights, _ in seen] == [str(directory)] * 2, "one of two layers, one of three"
    assert not any(submitted for _, submitted in seen), "before anything is submitted"
    configs = list((tmp_path / "runs" / "shakespeare").glob("*/config.yaml"))
    assert [yaml.safe_load(path.read_text())["model"]["weights"] for path in configs] == [str(directory)] * 4
