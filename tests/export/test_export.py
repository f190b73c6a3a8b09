"""`export RUN`: a folder that needs none of the project's code, checked beside the model, there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import Answer, refused
from processes import environment, finish, small_disk, toy_words
from safetensors.torch import load_file
from strangers import apart, told_by_a_stranger, trained

from launcher.errors import RunError
from launcher.export import forms
from launcher.exported.folder import Folder

Command = Callable[..., Answer]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BY_HAND = """
import torch
from torch import nn

class model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * 16, 4))
        self.seen, self.filler = nn.Buffer(torch.zeros(())), nn.Parameter(torch.zeros(0))
        self.eval()

    def forward(self, x):
        return self.head(self.body(x)) + self.filler.sum() + 1e-6 * self.seen
"""
"""The toy model, written anew by somebody who knows its layers and has their weights."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    done = finish(home, toy_words(home / "runs", "id=a", "train.epochs=1", "train.precision=bf16"), timeout=100)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def exported(run: Path) -> tuple[Path, str]:
    """Where it is, and what was said."""
    done = finish(run.parents[2], ["export", str(run)], timeout=100)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1]), done.stdout


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_folder_is_whole_and_says_what_it_is(run: Path, exported: tuple[Path, str]) -> None:
    place, said = exported
    assert place == run / "export"
    folder = Folder(place)
    told = folder.told
    assert told["predicts"] == "classes"
    assert told["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["batch", 3, 8, 8]}]
    assert told["outputs"] == [{"name": "output", "dtype": "float32", "shape": ["batch", 4]}]
    assert told["missing"] == {}
    assert told["differences"]["program"]["relative"] <= 1e-6
    assert 0 < told["differences"]["precision"]["relative"] < 0.1, "bfloat16 has eight bits"
    assert told["run"]["step"] == json.loads((run / "summary.json").read_text())["steps"]
    assert told["run"]["is_average"], "train.ema_decay"
    assert folder.json("labels.json") == ["north", "east", "south", "west"]
    for name, each in told["files"].items():
        assert hashlib.sha256((place / name).read_bytes()).hexdigest() == each["sha256"]
    assert {"README.md", "guards.json", "model.onnx", "model.safetensors", "preprocessing.json", "program.pt2"} < told["files"].keys()
    assert "at most" in said
    card = (place / "README.md").read_text()
    assert card.count("```python\n") == 2, "by torch, and by onnxruntime"
    assert f"| test_accuracy | {told['run']['metrics']['test_accuracy']:.6g} |" in card


def test_a_stranger_comes_to_what_the_training_model_does(tmp_path: Path, run: Path, exported: tuple[Path, str]) -> None:
    """From the program, from ONNX, and from the safetensors alone, in a module of their own."""
    known = trained(run, tmp_path)
    found = told_by_a_stranger(exported[0], known.inputs, tmp_path, BY_HAND)
    assert found.keys() == {"program", "safetensors in the program", "safetensors in a module by hand", "onnx"}
    assert max(apart(known.outputs, found, f"classes, {len(known.inputs)} samples").values()) < 1e-4
    wanted = known.outputs["output"].argmax(-1)
    assert all(torch.equal(outputs["output"].argmax(-1), wanted) for outputs in found.values())
    other = {form: {name: tensor + 1 for name, tensor in outputs.items()} for form, outputs in found.items()}
    assert min(apart(known.outputs, other, "counter-test").values()) > 0.9


def test_a_second_export_takes_the_place_of_the_first(exported: tuple[Path, str], run: Path, command: Command) -> None:
    place, _ = exported
    answer = command("export", str(run), "onnx=false", "hf=true")
    assert answer.code == 0, answer
    told = Folder(place).told
    assert told["missing"] == {"onnx": "onnx=false"}
    assert "model.onnx" not in files(place)
    assert json.loads((place / "config.json").read_text())["architectures"] == ["Net"]
    from huggingface_hub import ModelCard

    assert ModelCard.load(place / "README.md").data.to_dict()["pipeline_tag"] == "image-classification"
    assert [path.name for path in run.iterdir() if path.name.startswith(".export")] == []


@pytest.mark.parametrize(
    ("words", "code", "parts"),
    [
        ((), 2, ("export takes one run", "export RUN [to=DIR]")),
        (("RUN", "RUN"), 2, ("export takes one run",)),
        (("RUN", "check=best"), 2, ("export check=: there is no such option",)),
        (("RUN", "onnx=maybe"), 2, ("onnx=maybe: type true or false",)),
        (("RUN", "checkpoint=999"), 2, ("has none of that step; type newest, best, or one of ",)),
        (("RUN", "to=full"), 3, ("there are files in it that are none of an export",)),
        (("RUN", "to=full/letter.txt"), 3, ("it is there, and no directory",)),
        (("nobody",), 2, ("nobody: no such run",)),
    ],
    ids=lambda each: "-".join(map(str, each))[:40] if isinstance(each, tuple) else str(each),
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, run: Path, command: Command, words: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    refused(command("export", *(str(run) if word == "RUN" else word for word in words)), code, *parts)
    assert files(tmp_path / "full") == {"letter.txt": b"mine"}


def test_a_run_that_is_not_done_is_exported_when_that_is_said(tmp_path: Path, run: Path, command: Command) -> None:
    copy = tmp_path / "runs" / "toy" / "copy"
    shutil.copytree(run, copy, symlinks=True, ignore=shutil.ignore_patterns("export"))
    (copy / "summary.json").unlink()
    refused(command("export", str(copy)), 3, "is not done (", "type unfinished=true")
    assert command("export", str(copy), "unfinished=true", "onnx=false").code == 0
    shutil.rmtree(copy / "checkpoints")
    refused(command("export", str(copy), "unfinished=true"), 3, "has no checkpoint")


def test_a_run_whose_code_is_gone_or_is_another(tmp_path: Path, run: Path, command: Command) -> None:
    copy = tmp_path / "runs" / "toy" / "copy"
    shutil.copytree(run, copy, symlinks=True, ignore=shutil.ignore_patterns("export"))
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("toyproject.net.Net", "toyproject.gone.Net"))
    refused(command("export", str(copy)), 2, "toyproject.gone.Net")
    (copy / "config.yaml").write_text(config.replace("width: 8", "width: 4"))
    refused(command("export", str(copy)), 3, "as its code is now; bring back the code of the run")
    assert not (copy / "export").exists()


def test_no_room_leaves_nothing(tmp_path: Path, run: Path, command: Command) -> None:
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        refused(command("export", str(run), f"to={disk / 'out'}"), 3, "cannot be written", "make room")
        assert list(disk.iterdir()) == []


def test_a_model_that_cannot_be_traced_says_where_and_the_rest_is_exported(tmp_path: Path, command: Command) -> None:
    done = finish(tmp_path, toy_words(tmp_path / "runs", "id=a", "train.steps=2", "model._target_=toyproject.net.Branching"), timeout=100)
    assert done.returncode == 0, done.stderr
    answer = command("export", done.stdout.splitlines()[-1])
    assert answer.code == 0, answer
    assert "no program: torch.export cannot trace the model at net.py:" in answer.err
    assert "if x.mean() > 0" in answer.err
    place = Path(answer.out.splitlines()[-1])
    assert "program" in Folder(place).told["missing"]
    assert "program.pt2" not in files(place)
    assert load_file(place / "model.safetensors")
    refused(
        command("predict", str(place), str(place / "export.json")),
        3,
        "it has no program that could be run (torch.export cannot trace",
        "net.py",
    )


def test_a_form_that_computes_something_else_is_refused() -> None:
    """What the check is for: it tells another model from another order of sums."""
    model, inputs = torch.nn.Linear(4, 3), (torch.randn(8, 4),)
    assert forms.checked("the program", forms.difference(model, model, inputs)).largest == 0
    with pytest.raises(RunError, match=r"^the ONNX form is not the model that was trained: .* nothing was exported$"):
        forms.checked("the ONNX form", forms.difference(model, lambda x: model(x) * 1.01, inputs))
    with pytest.raises(RunError, match="not finite"):
        forms.difference(model, lambda x: model(x) / 0, inputs)
    with pytest.raises(RunError, match="it makes"):
        forms.difference(model, lambda x: model(x)[:1], inputs)


class Flat(torch.nn.Module):
    """Which is traced with a view of what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], -1).cumsum(1)


def test_channels_lie_last_where_the_program_takes_them_so() -> None:
    pictures = (torch.randn(4, 3, 6, 6),)
    for model, takes in ((torch.nn.Conv2d(3, 2, 3), True), (Flat(), False)):
        made = torch.export.export(model, pictures, dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)).module()
        assert forms.takes_channels_last(model, made, pictures) is takes
    assert not forms.takes_channels_last(torch.nn.Linear(4, 3), torch.nn.Linear(4, 3), (torch.randn(8, 4),))


def test_an_export_that_is_encrypted_is_opened_with_its_key(
    tmp_path: Path, run: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.delenv("LAUNCHER_KEY", raising=False)
    words = ("export", str(run), f"to={tmp_path / 'sealed'}", "encrypt=true")
    answer = command(*words)
    assert (answer.code, len(answer.lines)) == (3, 1)
    assert "encrypt=true needs a key" in answer.err
    monkeypatch.setenv("LAUNCHER_KEY", "ab" * 32)
    made = command(*words)
    assert made.code == 0
    assert made.out.startswith("encrypted with the key ")
    assert all(path.name == "export.json" or path.name.endswith(".sealed") for path in (tmp_path / "sealed").iterdir())
    assert {"program.pt2", "model.onnx", "model.safetensors"} < Folder(tmp_path / "sealed").files.keys()
    assert Folder(tmp_path / "sealed").json("preprocessing.json")["kind"]
    asked = ("predict", str(tmp_path / "sealed"), str(tmp_path))
    monkeypatch.setenv("LAUNCHER_KEY", "cd" * 32)
    refused(command(*asked), 3, "is encrypted with the key", "and yours is")
    monkeypatch.setenv("LAUNCHER_KEY", "short")
    refused(command(*asked), 3, "LAUNCHER_KEY")
    monkeypatch.delenv("LAUNCHER_KEY")
    refused(command(*asked), 3, "it is encrypted (with the key", "LAUNCHER_KEY")


def test_one_that_is_told_to_end_leaves_nothing_and_one_that_is_killed_leaves_no_process(
    tmp_path: Path, run: Path, command: Command, no_process_left: None
) -> None:
    """The launcher alone is told; the process that makes the export is another. What kill -9 leaves goes with the next."""
    target = tmp_path / "out"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        words = [sys.executable, "-m", "launcher", "export", str(run), f"to={target}"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path))
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("export: making the program"))
        assert line
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == code, said
        assert ("launcher: stopped; nothing was exported" in said) == (number == signal.SIGTERM)
        left = [path.name for path in tmp_path.iterdir() if "out" in path.name]
        assert (left == []) == (number == signal.SIGTERM)
    assert command("export", str(run), f"to={target}", "onnx=false").code == 0
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]
