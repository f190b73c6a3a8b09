"""A run becomes a folder that needs none of its code (docs/after-training.md): weights, forms of the model, what goes in and comes out."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from launcher import __version__
from launcher.errors import ConfigError
from launcher.export import card, forms, source
from launcher.export.forms import Failed
from launcher.export.source import Source, as_json
from launcher.exported import folder
from launcher.exported.draft import Draft, Place, drafted
from launcher.node.entry import read_config
from launcher.plan import Plan
from launcher.predict import guards
from launcher.rundir.rundir import RunDir
from launcher.train.checkpoint.manifest import Checkpoint
from launcher.trust import vault_key


def make(asked: Mapping[str, Any]) -> dict[str, Any]:
    """`asked`: `run`, `to`, `checkpoint`, `onnx`, `hf`, `encrypt`, as the verb has them. Returns where the folder is and what to say of it.
    Raises ConfigError, RunError, CheckpointError; then nothing is there that was not."""
    run, target = RunDir(asked["run"]), Path(asked["to"])
    plan = run.read_plan()
    if Path(plan.directory).is_dir():
        os.chdir(plan.directory)  # where the run's processes looked for packages of the user's own
    config = read_config(run)
    key = vault_key.needed("encrypt=true", new=True) if asked.get("encrypt") else None
    with drafted(target, key) as draft:
        _say("reading the weights")
        checkpoint = source.weights(run, config, asked["checkpoint"], draft.at(folder.WEIGHTS))
        _say("building the model and reading samples")
        found = source.opened(run, config, draft.at(folder.WEIGHTS))
        draft.done(folder.WEIGHTS)
        told = _forms(found, draft, asked["onnx"], source.precision_of(run))
        preprocessing = _words(found, draft, told["outputs"])
        if why := _guards(found, draft):
            told["missing"]["guards"] = why
        told["run"] = _provenance(run, plan, config, checkpoint, found)
        if asked["hf"]:
            model = card.without_places(config["model"])
            draft.write("config.json", as_json({"model_type": "launcher", "architectures": [_class_of(config)], "launcher": model}))
        draft.write(folder.CARD, card.text(told, config, found.model, preprocessing, asked))
        draft.finish(told)
    return {"to": str(target), "told": {name: told[name] for name in ("predicts", "differences", "missing")}, "step": checkpoint.step}


def _forms(found: Source, draft: Draft, with_onnx: bool, precision: str) -> dict[str, Any]:
    """Of each how far it is from the model, or why it is not there."""
    model, inputs = found.model, found.inputs
    names = [f"input_{place}" for place in range(len(inputs))] if len(inputs) > 1 else ["input"]
    differences: dict[str, Any] = {}
    missing: dict[str, str] = {}
    is_channels_last = False
    form, file = "program", folder.PROGRAM
    try:
        _say("making the program (torch.export)")
        made = forms.program(model, inputs, draft.at(file))
        _say("checking the program beside the model")
        loaded = _loaded(draft.at(file))
        differences[form] = forms.checked("the program", forms.difference(model, loaded, inputs)).told()
        is_channels_last = forms.takes_channels_last(model, loaded, inputs)
        draft.done(file)
        if with_onnx:
            form, file = "onnx", folder.ONNX
            _say("making ONNX (torch.onnx)")
            forms.onnx(model, made, inputs, names, draft.at(file))
            _say("checking ONNX beside the model (onnxruntime)")
            differences[form] = _onnx(found, draft.at(file)).told()
            draft.done(file)
    except Failed as error:
        draft.drop(file)
        missing[form] = str(error)
    if "program" in missing:
        missing["onnx"] = "it is made of the program"
    elif not with_onnx:
        missing["onnx"] = "onnx=false"
    computing = source.computing(found, precision)
    differences["precision"] = {"of": precision, **forms.difference(model, computing, inputs)._asdict()}
    few, many = (dict(forms.named(model(*(each[:count] for each in inputs)))) for count in (1, forms.samples(inputs)))
    return {
        "predicts": getattr(found.task, "predicts", "tensors"),
        "predicting": dict(getattr(found.task, "predicting", {})),
        "inputs": [_shape(name, each, each[:1]) for name, each in zip(names, inputs, strict=True)],
        "outputs": [_shape(name, many[name], few[name]) for name in many],
        "channels_last": is_channels_last,
        "differences": differences,
        "missing": missing,
    }


def _say(what: str) -> None:
    """To whoever waits for it; who does not listen misses nothing of the export."""
    with contextlib.suppress(OSError):
        print(f"export: {what}", file=sys.stderr, flush=True)


def _loaded(file: Place) -> Any:
    """As a stranger would: from the file."""
    return torch.export.load(file).module()


def _onnx(found: Source, file: Place) -> forms.Difference:
    """Raises Failed."""
    return forms.checked("the ONNX form", forms.difference(found.model, lambda *inputs: forms.run_onnx(file, inputs), found.inputs))


def _shape(name: str, many: torch.Tensor, few: torch.Tensor) -> dict[str, Any]:
    shape = ["batch" if size != other else size for size, other in zip(many.shape, few.shape, strict=True)]
    return {"name": name, "dtype": str(many.dtype).removeprefix("torch."), "shape": shape}


def _words(found: Source, draft: Draft, outputs: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Preprocessing, labels, tokenizer: what is not the model. Returns the first. Raises ConfigError."""
    preprocessing = dict(getattr(found.data, "preprocessing", None) or {"kind": "tensors"})
    if preprocessing["kind"] == "text" and preprocessing["tokenizer"] != "bytes":
        draft.write(folder.TOKENIZER, Path(preprocessing["tokenizer"]).read_bytes())
        preprocessing["tokenizer"] = folder.TOKENIZER
    draft.write(folder.PREPROCESSING, as_json(preprocessing))
    if getattr(found.task, "predicts", "") in ("classes", "boxes"):
        scores = next((each for each in outputs if each["name"] in ("scores", "output")), None)
        if scores is None or not isinstance(scores["shape"][-1], int):
            raise ConfigError("export: a model of classes has a score for each; its output has none of a fixed number")
        draft.write(folder.LABELS, as_json(source.labels(found, scores["shape"][-1])))
    return preprocessing


def _guards(found: Source, draft: Draft) -> str:
    """Statistics of the training inputs. Why there are none, where there are none."""
    _say("fitting the guards to the training inputs")
    if not found.training:
        return "the inputs are no floating-point numbers, of which there would be statistics"
    try:
        draft.write(folder.GUARDS, as_json(guards.fit(found.training)))
    except ValueError as error:
        return str(error)
    return ""


def _provenance(run: RunDir, plan: Plan, config: Mapping[str, Any], checkpoint: Checkpoint, found: Source) -> dict[str, Any]:
    data = config["data"]
    return {
        "name": plan.name,
        "id": plan.id,
        "step": checkpoint.step,
        "checkpoint": checkpoint.path.name,
        "is_average": config["train"]["ema_decay"] > 0,
        "config_hash": plan.config_hash,
        "code_hash": plan.code_hash,
        "data": {
            "target": data["_target_"],
            "fingerprint": data.get("fingerprint"),
            "is_standin": bool(getattr(found.data, "standin", False)),
        },
        "metrics": source.metrics(run),
        "versions": {"torch": torch.__version__, "launcher": __version__},
    }


def _class_of(config: Mapping[str, Any]) -> str:
    return config["model"]["_target_"].rpartition(".")[2]
