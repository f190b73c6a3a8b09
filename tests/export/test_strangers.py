"""A process without the project makes of an export what the training model makes: the same boxes, next tokens and classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import Command
from small_runs import SmallRuns
from strangers import apart, told_by_a_stranger, trained

from launcher.answers.finder import Finder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, small_runs: SmallRuns) -> None:
    for name, value in small_runs.env.items():
        monkeypatch.setenv(name, value)


def exported(command: Command, run: Path, to: Path) -> Path:
    answer = command("export", str(run), f"to={to}")
    assert answer.code == 0, answer
    return to


def test_a_detector_finds_the_same_boxes_for_a_stranger(tmp_path: Path, small_runs: SmallRuns, command: Command) -> None:
    run = small_runs.trained("detection")
    known = trained(run, tmp_path)
    found = told_by_a_stranger(exported(command, run, tmp_path / "out"), known.inputs, tmp_path)
    assert max(apart(known.outputs, found, f"detector, {len(known.inputs)} pictures").values()) < 1e-3
    finder = Finder(**{**known.task.predicting, "least_score": 0.0})  # of a model of four steps hardly anything is sure
    size = (known.inputs.shape[-2], known.inputs.shape[-1])
    wanted = finder(known.outputs, size)
    assert wanted.real.sum() > len(known.inputs)
    for outputs in found.values():
        got = finder(outputs, size)
        assert torch.equal(got.real, wanted.real)
        assert torch.equal(got.classes, wanted.classes)
        assert torch.allclose(got.boxes, wanted.boxes, atol=1e-2), "pixels"
        assert torch.allclose(got.scores, wanted.scores, atol=1e-4)


def test_a_language_model_goes_on_the_same_for_a_stranger(tmp_path: Path, small_runs: SmallRuns, command: Command) -> None:
    run = small_runs.trained("shakespeare")
    known = trained(run, tmp_path)
    found = told_by_a_stranger(exported(command, run, tmp_path / "out"), known.inputs, tmp_path)
    assert max(apart(known.outputs, found, f"language model, {known.inputs.numel():,} tokens").values()) < 1e-4
    wanted = known.outputs["output"].argmax(-1)
    assert all(torch.equal(outputs["output"].argmax(-1), wanted) for outputs in found.values())


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_cifar_as_make_run_trains_it_is_the_same_for_a_stranger(
    tmp_path: Path, small_runs: SmallRuns, shared_data: Path, command: Command
) -> None:
    """On all of its test images."""
    run = small_runs.cifar(shared_data)
    known = trained(run, tmp_path, 10_000)
    found = told_by_a_stranger(exported(command, run, tmp_path / "out"), known.inputs, tmp_path)
    assert max(apart(known.outputs, found, f"CIFAR, {len(known.inputs):,} images").values()) < 1e-3
    wanted = known.outputs["output"].argmax(-1)
    same = {form: float((outputs["output"].argmax(-1) == wanted).float().mean()) for form, outputs in found.items()}
    print(f"share of the same classes: {same}")
    assert min(same.values()) == 1
