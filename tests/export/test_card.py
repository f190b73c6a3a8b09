"""The lines that stand in a model card, run as they stand there, in a process that has nothing of the project: they come to what
`predict` does. And what a card does not say: where the user's files lie."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from launcher.export import card, forms, use
from launcher.exported.draft import Draft, drafted
from launcher.exported.folder import LABELS, ONNX, PREPROCESSING, PROGRAM, WEIGHTS
from launcher.predict.predictor import Asked, Predictor

FITTED = {"kind": "image", "mode": "RGB", "size": [8, 8], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
COLUMNS = [
    {"column": "age", "equals": None, "mean": 40.0, "std": 12.0, "fill": 30.0},
    {"column": "town", "equals": "Ulm", "mean": 0.25, "std": 0.5, "fill": None},
]
KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "stretch": ({**FITTED, "fit": "stretch"}, (3, 8, 8)),
    "grey": ({**FITTED, "fit": "stretch", "mode": "L", "mean": [0.4], "std": [0.2]}, (1, 8, 8)),
    "middle": ({**FITTED, "fit": "middle", "share": 0.875}, (3, 8, 8)),
    "upper_left": ({**FITTED, "fit": "upper_left", "fill": [10, 20, 30]}, (3, 8, 8)),
    "table": ({"kind": "table", "columns": COLUMNS}, (2,)),
    "array": ({"kind": "array", "shape": [2, 3], "mean": [0.5, 1.0], "std": [2.0, 3.0], "fill": [0.0, 1.0]}, (2, 3)),
    "tensors": ({"kind": "tensors"}, (2, 3)),
    "text": ({"kind": "text", "tokenizer": "bytes", "length": 8, "end": None}, (8,)),
}
NAMES = ["one", "two", "three", "four"]
DRIVER = """
import contextlib, io, json, os, sys
said = {}
for folder in sys.argv[1:]:
    os.chdir(folder)
    for form in ("program", "onnx"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(open(f"{form}.py").read(), f"{folder}/{form}.py", "exec"), {"__name__": "card"})
        said[f"{os.path.basename(folder)} {form}"] = out.getvalue()
assert not [name for name in sys.modules if name.split(".")[0] in ("launcher", "models", "data")]
print(json.dumps(said))
"""
"""Each card's lines by themselves; one process, for torch takes seconds to import."""


class Texts(nn.Module):
    """Tokens (N, T) to scores (N, T, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.end = nn.Embedding(256, 8), nn.Linear(8, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.begin(x).cumsum(1))


def _made(kind: str, home: Path) -> Path:
    """An export of an untrained model, with its lines beside it and a file of the kind that it takes."""
    preprocessing, shape = KINDS[kind]
    torch.manual_seed(0)
    is_text = kind == "text"
    model = Texts().eval() if is_text else nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), len(NAMES))).eval()
    inputs = (torch.randint(256, (4, *shape)),) if is_text else (torch.randn(4, *shape),)
    tensor = {"name": "input", "dtype": str(inputs[0].dtype).removeprefix("torch."), "shape": ["batch", *shape]}
    output = {"name": "output", "dtype": "float32", "shape": ["batch", *((*shape, 256) if is_text else (len(NAMES),))]}
    told = {"predicts": "tokens" if is_text else "classes", "predicting": {}, "inputs": [tensor], "outputs": [output]}
    with drafted(home / kind) as draft:
        _write(draft, model, inputs)
        draft.write(PREPROCESSING, json.dumps(preprocessing))
        if not is_text:
            draft.write(LABELS, json.dumps(NAMES))
        for form in ("program", "onnx"):
            draft.write(f"{form}.py", "\n".join(use.lines(told, preprocessing, form)))
        draft.finish({**told, "differences": {}, "missing": {}, "run": {"name": "a", "id": "b", "step": 1}})
    _given(kind, home / kind, shape)
    return home / kind


def _write(draft: Draft, model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    from safetensors.torch import save

    draft.write(WEIGHTS, save(model.state_dict()))
    made = forms.program(model, inputs, draft.at(PROGRAM))
    forms.onnx(model, made, inputs, ["input"], draft.at(ONNX))


def _given(kind: str, place: Path, shape: tuple[int, ...]) -> None:
    drawn = np.random.default_rng(1)
    Image.fromarray(drawn.integers(0, 256, (23, 31, 3), np.uint8)).save(place / "picture.png")
    (place / "rows.csv").write_text("town,age\nUlm,\nBonn,7\n")
    np.save(place / ("input.npy" if kind == "tensors" else "rows.npy"), drawn.normal(size=(2, *shape)).astype(np.float32))


def _predicted(kind: str, place: Path) -> str:
    """What the lines would print."""
    asked = Asked(0.0, 3, (), 20)
    predictor = Predictor(place, torch.device("cpu"), asked)
    if kind in ("stretch", "grey", "middle", "upper_left"):
        ready = predictor.picture((place / "picture.png").read_bytes())
    elif kind == "table":
        ready = predictor.row({"town": "Ulm", "age": ""})
    else:
        ready = predictor.row(np.load(place / ("input.npy" if kind == "tensors" else "rows.npy"))[0])
    (answer,) = predictor.predict([ready])
    return "".join(f"{name} {value:.4f}\n" for name, value in answer["top"])


def test_the_lines_of_each_kind_come_to_what_predict_does(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    places = {kind: _made(kind, tmp_path) for kind in KINDS}
    words = [sys.executable, "-I", "-c", DRIVER, *map(str, places.values())]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for kind, place in places.items():
        if kind != "text":
            assert said[f"{kind} program"] == said[f"{kind} onnx"] == _predicted(kind, place), kind
    assert said["text program"] == said["text onnx"]
    assert said["text program"].startswith("To be")
    assert len(said["text program"]) >= len("To be") + 1


def test_the_card_of_a_run_has_them(digits: Path, tmp_path: Path) -> None:
    """Of digits: 8x8, grey, without ONNX."""
    text = (digits / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    assert str(digits.parent) not in text
    here = tmp_path / "copy"
    shutil.copytree(digits, here)
    drawn = np.random.default_rng(1).integers(0, 256, (30, 20, 3), np.uint8)
    Image.fromarray(drawn).save(here / "picture.png")
    done = subprocess.run([sys.executable, "-I", "-c", block], cwd=here, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == _predicted("grey", here)


def test_a_card_says_nothing_of_where_files_lie() -> None:
    config = {
        "model": {"_target_": "torch.nn.Linear", "weights": "/home/me/weights/tiny"},
        "data": {"_target_": "data.text.Text", "root": "/secret/place/set", "files": ["~/mine/a.txt", {"deep": "file:///srv/b.txt"}]},
        "train": {"ema_decay": 0.0},
    }
    shown = card.without_places(config)
    assert shown["data"] == {"_target_": "data.text.Text", "root": "set", "files": ["a.txt", {"deep": "b.txt"}]}
    assert shown["model"]["weights"] == "tiny"
    assert not re.search(r"/|~", json.dumps(shown))
