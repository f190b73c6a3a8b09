"""The model card: what a person wants to know of a model that lies before them (Mitchell et al., 2019, https://arxiv.org/abs/1810.03993).
Its head is what the Hugging Face hub reads (https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from launcher.config import tree
from launcher.export import use

_PIPELINES = {"classes": "image-classification", "boxes": "object-detection", "tokens": "text-generation", "numbers": "tabular-regression"}
_HUB = """\
The folder is uploaded as it is; first `pip install huggingface_hub` and `hf auth login`:

```
hf upload YOU/MODEL . .
```

transformers has no such model and does not load it (`AutoModel` ends in an error that names the type `launcher`): use the lines above, or
fill the class that `config.json` names with `model.safetensors`."""


def text(
    told: Mapping[str, Any], config: Mapping[str, Any], model: nn.Module, preprocessing: Mapping[str, Any], asked: Mapping[str, Any]
) -> str:
    """Markdown. `told`: what export.json will say; `config`: of the run; `preprocessing`: what preprocessing.json says; `asked`: of the
    export, whether `hf` and `encrypt`."""
    run = told["run"]
    parts = (
        _head(told, run),
        _model(told, config, model),
        _measured(told, run),
        _checked(told),
        _use(told, preprocessing, asked),
        _config(config),
    )
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(told: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    yield "---"
    yield "library_name: launcher"
    if told["predicts"] in _PIPELINES:
        yield f"pipeline_tag: {_PIPELINES[told['predicts']]}"
    yield from ("tags:", "- launcher", "---", "", f"# {run['name']}", "")


def _model(told: Mapping[str, Any], config: Mapping[str, Any], model: nn.Module) -> Iterator[str]:
    run, data = told["run"], told["run"]["data"]
    parameters = sum(each.numel() for each in model.parameters())
    standin = " **This is the drawn stand-in and not the real data set: the figures say nothing of it.**" if data["is_standin"] else ""
    average = ", averaged over updates (train.ema_decay)" if run["is_average"] else ""
    yield f"`{config['model']['_target_']}`, {parameters:,} parameters; predicts {told['predicts']}."
    fingerprint = f" (fingerprint `{data['fingerprint']}`)" if data["fingerprint"] else ""
    yield f"Trained on `{data['target']}`{fingerprint}.{standin}"
    yield f"Weights of update {run['step']:,}{average}, of the run `{run['name']}/{run['id']}`."
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    yield f"Code `{run['code_hash']}`, config `{run['config_hash']}`, {versions}."
    yield ""


def _measured(told: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    if run["metrics"]:
        yield from ("## Measured", "", "| metric | value |", "| --- | --- |")
        yield from (f"| {name} | {value:.6g} |" for name, value in run["metrics"].items())
        yield ""


def _checked(told: Mapping[str, Any]) -> Iterator[str]:
    yield from (
        "## Checked",
        "",
        "The largest difference from the model as it was trained, in float32:",
        "",
        "| form | largest | relative |",
    )
    yield "| --- | --- | --- |"
    for form, found in told["differences"].items():
        name = f"the model itself in {found['of']}" if form == "precision" else form
        yield f"| {name} | {found['largest']:.3g} | {found['relative']:.3g} |"
    yield ""
    for form, why in told["missing"].items():
        yield f"No {form}: {why}."
    yield ""


def _use(told: Mapping[str, Any], preprocessing: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Use", "", "With the launcher, which also says of each input what is odd about it:", "")
    yield from ("    python -m launcher predict . INPUT…", "")
    if asked["encrypt"]:
        yield from ("The folder is encrypted: with its key in `LAUNCHER_KEY` that command opens it, and nothing else does.", "")
        return
    for form, needs in (("program", "torch"), ("onnx", "onnxruntime")):
        if form not in told["missing"] and (lines := use.lines(told, preprocessing, form)):
            yield from (f"With {needs} and NumPy alone, in this folder:", "", "```python", *lines, "```", "")
    if told["predicts"] == "boxes":
        yield from ("Boxes are found in these points by `launcher predict`, which draws them too (`draw=DIR`).", "")
    if asked["hf"]:
        yield from ("## On the Hugging Face hub", "", _HUB, "")


def without_places(value: Any) -> Any:
    """Of a config, with the base names alone of files and directories: where they lie on somebody's machine is nobody's business."""
    if isinstance(value, dict):
        return {key: without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    is_place = isinstance(value, str) and value.startswith(("/", "~", "file:/"))
    return value.rstrip("/").rpartition("/")[2] if is_place else value


def _config(config: Mapping[str, Any]) -> Iterator[str]:
    keys = ("model", "data", "task", "optim", "schedule", "strategy", "train", "seed")
    shown = without_places({key: config[key] for key in keys if key in config})
    lines = json.dumps(shown, indent=2, default=tree.shown, ensure_ascii=False).splitlines()
    yield from ("## Config", "", *(f"    {line}" for line in lines))
