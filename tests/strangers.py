"""Somebody who has torch, safetensors and onnxruntime, and nothing of ours: what they come to by each form of an export."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from launcher.export import forms, source
from launcher.plan import Mesh
from launcher.rundir.rundir import RunDir
from launcher.train import data_set
from launcher.train.work import read_config

STRANGER = """
import sys
import numpy, onnxruntime, torch
from safetensors.torch import load_file
folder, inputs, out, by_hand = sys.argv[1:]
given = torch.from_numpy(numpy.load(inputs))
program = torch.export.load(f"{folder}/program.pt2")
weights = load_file(f"{folder}/model.safetensors")
assert all(torch.equal(weights[name], tensor) for name, tensor in program.state_dict.items() if name in weights)

def named(found):
    return found if isinstance(found, dict) else {"output": found}

def filled(model):
    places = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    for place in places.values():
        place.fill_(float("nan")) if place.is_floating_point() else place.fill_(0)
    for name, tensor in weights.items():
        assert places[name].shape == tensor.shape, name
        places[name].copy_(tensor)
    return model

with torch.no_grad():
    made = {"program": named(program.module()(given)), "safetensors in the program": named(filled(program.module())(given))}
    if by_hand:
        found = {}
        exec(by_hand, found)
        made["safetensors in a module by hand"] = named(filled(found["model"]())(given))
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
said = session.run(None, {session.get_inputs()[0].name: given.numpy()})
made["onnx"] = dict(zip([each.name for each in session.get_outputs()], map(torch.from_numpy, said)))
assert not [name for name in sys.modules if name.split(".")[0] in ("launcher", "models", "data", "toyproject")]
numpy.savez(out, **{f"{form}/{name}": each.numpy() for form, found in made.items() for name, each in found.items()})
"""
"""A model that weights are put into has NaN in all its places before: one that the file has not would be seen in every output."""

Outputs = dict[str, torch.Tensor]


class Trained(NamedTuple):
    """The model as the run's own code builds it, filled from the checkpoint; what it is given and says in evaluation, in float32."""

    model: Any
    task: Any
    inputs: torch.Tensor
    outputs: Outputs


@torch.no_grad()
def trained(run: Path, home: Path, test_samples: int = 0) -> Trained:
    """Inputs are those that `export` tries, or so many of the test part."""
    config, file = read_config(RunDir(run)), home / "weights.safetensors"
    source.weights(RunDir(run), config, "newest", file)
    found = source.opened(RunDir(run), config, file)
    (inputs,) = found.inputs
    if test_samples:
        _, loader = data_set.opened(config, Mesh().at(0), torch.device("cpu"))
        inputs = torch.cat([source.given(found.task, batch)[0] for batch in loader.evaluation("test")])[:test_samples]
        loader.close()
    return Trained(found.model, found.task, inputs, dict(forms.named(found.model(inputs))))


def told_by_a_stranger(export: Path, inputs: torch.Tensor, home: Path, by_hand: str = "") -> dict[str, Outputs]:
    """Of each form, each output. `by_hand`: text that makes a `model` in which the weights are put too."""
    np.save(home / "inputs.npy", inputs.numpy())
    # -I: neither this folder nor PYTHONPATH, by which the project would be found
    words = [sys.executable, "-I", "-c", STRANGER, str(export), str(home / "inputs.npy"), str(home / "out.npz"), by_hand]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, Outputs] = {}
    with np.load(home / "out.npz") as found:
        for key in found:
            form, _, name = key.partition("/")
            made.setdefault(form, {})[name] = torch.from_numpy(found[key])
    return made


def apart(wanted: Outputs, found: Mapping[str, Outputs], what: str) -> dict[str, float]:
    """The largest difference of each form over all outputs, printed (-s); all outputs are there, and all differences are numbers."""
    assert all({*each} == {*wanted} for each in found.values()), {form: [*each] for form, each in found.items()}
    largest = {form: max(float((each[name] - wanted[name]).abs().max()) for name in wanted) for form, each in found.items()}
    print(f"{what}: largest difference from the training model {largest}")
    assert all(value == value for value in largest.values()), largest
    return largest
