"""A run becomes a folder that needs none of its code (docs/after-training.md): weights, forms of the model, what goes in and comes out."""

from __future__ import annotations

import os
import shutil
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
from launcher.exported.draft import Draft, drafted
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
    key = vault_key.needed("encrypt=true") if asked.get("encrypt") else None
    with drafted(target, key) as draft:
        checkpoint = source.weights(run, config, asked["checkpoint"], draft.at(folder.WEIGHTS))
        found = source.opened(run, config, draft.at(folder.WEIGHTS))
        told = _forms(found, draft, asked["onnx"], source.precision_of(run))
        _words(found, draft, told["outputs"])
        if why := _guards(found, draft):
            told["missing"]["guards"] = why
        told["run"] = _provenance(run, plan, config, checkpoint, found)
        if asked["hf"]:
            draft.write(
                "config.json", as_json({"model_type": "launcher", "architectures": [_class_of(config)], "launcher": config["model"]})
            )
        draft.write(folder.CARD, card.text(told, config, found.model))
        draft.finish(told)
    return {"to": str(target), "told": {name: told[name] for name in ("predicts", "differences", "missing")}, "step": checkpoint.step}


def _forms(found: Source, draft: Draft, with_onnx: bool, precision: str) -> dict[str, Any]:
    """Of each how far it is from the model, or why it is not there."""
    model, inputs = found.model, found.inputs
    names = [f"input_{place}" for place in range(len(inputs))] if len(inputs) > 1 else ["input"]
    differences: dict[str, Any] = {}
    missing: dict[str, str] = {}
    try:
        made = forms.program(model, inputs, draft.at(folder.PROGRAM))
        differences["program"] = forms.checked("the program", forms.difference(model, _loaded(draft.at(folder.PROGRAM)), inputs)).told()
        if with_onnx:
            forms.onnx(model, made, inputs, names, draft.at(folder.ONNX))
            differences["onnx"] = _onnx(found, draft).told()
    except Failed as error:
        missing["onnx" if "program" in differences else "program"] = str(error)
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
        "differences": differences,
        "missing": missing,
    }


def _loaded(path: Path) -> Any:
    """As a stranger would: from the file."""
    return torch.export.load(path).module()


def _onnx(found: Source, draft: Draft) -> forms.Difference:
    """Raises Failed, after which the file is not there."""
    try:
        return forms.checked(
            "the ONNX form", forms.difference(found.model, lambda *inputs: forms.run_onnx(draft.at(folder.ONNX), inputs), found.inputs)
        )
    except Failed:
        for path in draft.place.glob(f"{folder.ONNX}*"):
            path.unlink()
        raise


def _shape(name: str, many: torch.Tensor, few: torch.Tensor) -> dict[str, Any]:
    shape = ["batch" if size != other else size for size, other in zip(many.shape, few.shape, strict=True)]
    return {"name": name, "dtype": str(many.dtype).removeprefix("torch."), "shape": shape}


def _words(found: Source, draft: Draft, outputs: list[Mapping[str, Any]]) -> None:
    """Preprocessing, labels, tokenizer: what is not the model. Raises ConfigError."""
    preprocessing = dict(getattr(found.data, "preprocessing", None) or {"kind": "tensors"})
    if preprocessing["kind"] == "text" and preprocessing["tokenizer"] != "bytes":
        shutil.copyfile(preprocessing["tokenizer"], draft.at(folder.TOKENIZER))
        preprocessing["tokenizer"] = folder.TOKENIZER
    draft.write(folder.PREPROCESSING, as_json(preprocessing))
    if getattr(found.task, "predicts", "") in ("classes", "boxes"):
        scores = next((each for each in outputs if each["name"] in ("scores", "output")), None)
        if scores is None or not isinstance(scores["shape"][-1], int):
            raise ConfigError("export: a model of classes has a score for each; its output has none of a fixed number")
        draft.write(folder.LABELS, as_json(source.labels(found, scores["shape"][-1])))


def _guards(found: Source, draft: Draft) -> str:
    """Statistics of the training inputs. Why there are none, where there are none."""
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
