"""Exports of small models that nobody has trained, of each kind of prediction: in a second, where a run takes half a minute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from launcher.export import forms
from launcher.exported import folder
from launcher.exported.draft import drafted
from models.detector import Detector
from models.linear import Linear
from models.transformer import Transformer

_PICTURES = {"kind": "image", "mode": "RGB", "size": [64, 64], "fit": "stretch", "mean": [0.5] * 3, "std": [0.5] * 3}
_DETECTOR = {"depths": [1] * 4, "width": 8, "channels": 16, "num_classes": 2}
_FINDER = {"least_score": 0.0, "most_overlap": 0.6, "most_boxes": 5}
Made = tuple[nn.Module, torch.Tensor, dict[str, Any], dict[str, Any]]
"""A model, an input, preprocessing, predicting."""
_KINDS: dict[str, Callable[[], Made]] = {
    "classes": lambda: (Linear(4, 2), torch.randn(3, 4), {"kind": "array", "shape": [4], "mean": None, "std": None, "fill": None}, {}),
    "numbers": lambda: (Linear(4, 2), torch.randn(3, 4), {"kind": "array", "shape": [4], "mean": None, "std": None, "fill": None}, {}),
    "tensors": lambda: (Linear(4, 2), torch.randn(3, 4), {"kind": "tensors"}, {}),
    "boxes": lambda: (Detector(**_DETECTOR), torch.randn(2, 3, 64, 64), _PICTURES, _FINDER),
    "tokens": lambda: (
        Transformer(dim=32, layers=1, kv_heads=2, tied=False),
        torch.randint(0, 256, (2, 16)),
        {"kind": "text", "tokenizer": "bytes", "length": 16, "end": None},
        {"temperature": 1.0},
    ),
}
KINDS = tuple(_KINDS)


TABLE = {"kind": "table", "columns": [{"column": "age", "equals": None, "mean": 40.0, "std": 10.0, "fill": None}]}
TABLE["columns"] += [{"column": "a 'b' <i>", "equals": None, "mean": 1.23456, "std": 1.0, "fill": 0.0}]
TABLE["columns"] += [{"column": "colour", "equals": each, "mean": 0.5, "std": 0.5, "fill": None} for each in ("blue", "<red>")]
"""For the models of four numbers."""


def write(place: Path, kind: str, given: dict[str, Any] | None = None, name: str = "") -> Path:
    """Of a model that predicts this; `given`: other preprocessing, `name`: of the run. Raises KeyError where there is none."""
    torch.manual_seed(0)
    model, example, preprocessing, predicting = _KINDS[kind]()
    preprocessing = given or preprocessing
    model.eval()
    with drafted(place) as draft, torch.no_grad():
        save_file(model.state_dict(), draft.at(folder.WEIGHTS))
        forms.program(model, (example,), draft.at(folder.PROGRAM))
        draft.write(folder.PREPROCESSING, json.dumps(preprocessing))
        if kind in ("classes", "boxes"):
            draft.write(folder.LABELS, '["cat", "dog"]')
        draft.finish(
            {
                "predicts": kind,
                "predicting": predicting,
                "inputs": [{"name": "input", "dtype": str(example.dtype).removeprefix("torch."), "shape": ["batch", *example.shape[1:]]}],
                "outputs": [
                    {"name": name, "dtype": "float32", "shape": ["batch", *value.shape[1:]]} for name, value in forms.named(model(example))
                ],
                "differences": {},
                "missing": {},
                "run": {"name": name or kind, "id": "made", "step": 0},
            }
        )
    return place
