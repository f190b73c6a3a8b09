"""What is exported of a run: its model with the weights that were evaluated, the task, and inputs as the model was given them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load
from torch import nn

from launcher.config import pretrained, targets
from launcher.errors import CheckpointError, ConfigError
from launcher.exported.draft import Place
from launcher.plan import Mesh
from launcher.rundir.rundir import RunDir
from launcher.train import arithmetic, data_set
from launcher.train.checkpoint.consolidated import consolidate
from launcher.train.checkpoint.manifest import Checkpoint, by_step

SAMPLES = 64
"""On which forms are compared."""
STATISTICS = 20_000
"""Training samples that guards are fitted to, at most."""


class Source(NamedTuple):
    model: nn.Module
    """Whole, on the CPU, in float32, in evaluation mode."""
    task: Any
    data: Any
    inputs: tuple[torch.Tensor, ...]
    """Of up to SAMPLES samples, as an evaluation gives them."""
    training: list[torch.Tensor]
    """Batches of the first input, of up to STATISTICS training samples; none where it has no floating-point numbers."""


def chosen(run: RunDir, asked: str) -> Path:
    """The newest checkpoint, the best by the run's objective, or that of a step. Raises CheckpointError, ConfigError."""
    there = dict(by_step(run.checkpoints))
    if not there:
        raise CheckpointError(f"{run} has no checkpoint; they come every train.save_every steps: python -m launcher status {run}")
    if asked == "newest":
        return there[max(there)]
    if asked == "best":
        best = (run.read_summary() or {}).get("best")
        step = best.get("step") if isinstance(best, dict) else None
        if step not in there:
            raise ConfigError(
                f"checkpoint=best: {run} keeps none of its best step; type checkpoint=newest, or train with train.keep_best=true"
            )
        return there[step]
    if not asked.isdecimal() or int(asked) not in there:
        steps = ", ".join(map(str, sorted(there)))
        raise ConfigError(f"checkpoint={asked}: {run} has none of that step; type newest, best, or one of {steps}")
    return there[int(asked)]


def weights(run: RunDir, config: Mapping[str, Any], asked: str, into: Place) -> Checkpoint:
    """Write those that are evaluated into one file: of a run with averages, those. Raises CheckpointError, RunError."""
    kind = "ema" if config["train"]["ema_decay"] > 0 else "model"
    path = chosen(run, asked)
    if asked != "newest":
        return consolidate(path, into, kind)
    broken: list[str] = []
    for _, each in by_step(run.checkpoints):
        try:
            return consolidate(each, into, kind)
        except CheckpointError as error:
            broken.append(str(error))
    raise CheckpointError(f"{run} has no good checkpoint: {broken[0]}")


def opened(run: RunDir, config: Mapping[str, Any], file: Place) -> Source:
    """Build the model, fill it with `file`, and take some inputs. Raises ConfigError where the code or the data are gone, CheckpointError
    where the weights are of another model."""
    model, task = built(run, config), targets.build(config["task"])
    fill(model, file)
    model.eval()
    data, loader = data_set.opened(config, Mesh().at(0), torch.device("cpu"))
    try:
        found = next((part for each in ("val", "test", "train") if (part := loader.evaluation(each)).samples), None)
        assert found is not None, "there is a training sample"
        inputs = _first(task, found)
        training = list(_training(task, loader.evaluation("train"))) if inputs[0].is_floating_point() else []
    finally:
        loader.close()
    return Source(model, task, data, inputs, training)


def built(run: RunDir, config: Mapping[str, Any]) -> nn.Module:
    """As the run built it, without initial weights. Raises ConfigError."""
    node = config["model"]
    try:
        return targets.build(pretrained.without(node) if pretrained.is_named(node) else node)
    except ConfigError as error:
        copy = f"; a copy of it lies in {run.code}" if run.code.is_dir() else ""
        raise ConfigError(
            f"{run}: its model cannot be built any more ({error}); bring back the code that it was trained by{copy}"
        ) from error


@torch.no_grad()
def fill(model: nn.Module, file: Place) -> None:
    """Every parameter and buffer from `file`. Raises CheckpointError where one of either has no other."""
    places = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    filled: set[int] = set()
    with _stored(file) as stored:
        for name, tensor in stored:
            if name not in places or places[name].shape != tensor.shape:
                raise CheckpointError(
                    f"{name} {tuple(tensor.shape)} is not in the model as its code is now; bring back the code of the run"
                )
            places[name].copy_(tensor)
            filled.add(id(places[name]))
    if lacking := [name for name, _ in model.named_parameters() if id(places[name]) not in filled]:
        raise CheckpointError(f"the checkpoint has no {lacking[0]}, which the model as its code is now has; bring back the code of the run")


@contextlib.contextmanager
def _stored(file: Place) -> Iterator[Iterator[tuple[str, torch.Tensor]]]:
    """One tensor at a time of a file, all of what is in memory."""
    if isinstance(file, Path):
        with safe_open(file, "pt") as stored:
            yield ((name, stored.get_tensor(name)) for name in stored.keys())  # noqa: SIM118 (no mapping)
    else:
        yield iter(load(file.getvalue()).items())


class _Seen(Exception):
    """What a task gave its model."""


def given(task: Any, batch: Any) -> tuple[torch.Tensor, ...]:
    """What the model is given of a batch: asked of the task itself, which alone knows. Raises ConfigError."""

    def seen(*inputs: Any, **named: Any) -> Any:
        raise _Seen(inputs, named)

    try:
        task.metrics().update(seen, batch)
    except _Seen as found:
        inputs, named = found.args
        if named or not all(isinstance(each, torch.Tensor) for each in inputs):
            raise ConfigError("export takes models whose inputs are tensors, each by its place") from found
        return tuple(inputs)
    raise ConfigError(f"export: {type(task).__name__} calls no model in an evaluation, so that nobody knows what it is given")


def _first(task: Any, part: Any) -> tuple[torch.Tensor, ...]:
    """At least two samples, so that no dimension but theirs is one of samples."""
    found: list[tuple[torch.Tensor, ...]] = []
    for batch in part:
        found.append(given(task, batch))
        if sum(len(each[0]) for each in found) >= SAMPLES:
            break
    inputs = tuple(torch.cat(each)[:SAMPLES] for each in zip(*found, strict=True))
    return inputs if len(inputs[0]) > 1 else tuple(torch.cat((each, each)) for each in inputs)


def _training(task: Any, part: Any) -> Iterator[torch.Tensor]:
    count = 0
    for batch in part:
        inputs = given(task, batch)[0]
        yield inputs.clone()
        count += len(inputs)
        if count >= STATISTICS:
            return


def precision_of(run: RunDir) -> str:
    return str((run.read_summary() or {}).get("precision", "fp32"))


def computing(source: Source, precision: str) -> Any:
    """The model as the run's evaluations called it."""
    return arithmetic.computing(source.model, torch.device("cpu"), precision)


def labels(source: Source, scores: int) -> list[str]:
    """Names of the classes, as many as there are scores."""
    names = [str(name) for name in getattr(source.data, "class_names", ())][:scores]
    return [*names, *map(str, range(len(names), scores))]


def metrics(run: RunDir) -> dict[str, float]:
    """Of the summary."""
    summary = run.read_summary() or {}
    return {
        name: value
        for name, value in summary.items()
        if name.startswith(("val_", "test_")) and isinstance(value, int | float) and not isinstance(value, bool)
    }


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
