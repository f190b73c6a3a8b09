"""The model card: what a person wants to know of a model that lies before them (Mitchell et al., 2019, https://arxiv.org/abs/1810.03993).
Its head is what the Hugging Face hub reads (https://huggingface.co/docs/hub/model-cards)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from launcher.config import tree
from launcher.exported import folder

_PIPELINES = {"classes": "image-classification", "boxes": "object-detection", "tokens": "text-generation", "numbers": "tabular-regression"}
_USE = """\
```python
import json, torch
program = torch.export.load("program.pt2").module()      # no code of the project
outputs = program(inputs)                                # preprocessing.json says how inputs come about
```"""


def text(told: Mapping[str, Any], config: Mapping[str, Any], model: nn.Module) -> str:
    """Markdown. `told`: what export.json will say; `config`: of the run."""
    run = told["run"]
    return (
        "\n".join((*_head(told, run), *_model(told, config, model), *_measured(told, run), *_checked(told), *_use(told), *_config(config)))
        + "\n"
    )


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
    yield f"Trained on `{data['target']}` (fingerprint `{data['fingerprint']}`).{standin}"
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


def _use(told: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Use", "", "    python -m launcher predict . INPUT…", "")
    if folder.PROGRAM.partition(".")[0] not in told["missing"]:
        yield from (_USE, "")


def _config(config: Mapping[str, Any]) -> Iterator[str]:
    shown = {key: config[key] for key in ("model", "data", "task", "optim", "schedule", "strategy", "train", "seed") if key in config}
    lines = json.dumps(shown, indent=2, default=tree.shown, ensure_ascii=False).splitlines()
    yield from ("## Config", "", *(f"    {line}" for line in lines))
