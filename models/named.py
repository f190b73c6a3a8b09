"""Models of other packages by their names: timm, torchvision, transformers. Each package is imported when a model of it is asked for.

What is asked for by name is a torch module like any other. It states no BLOCKS, for it has those of its package: `strategy.wrap=[…]` or
`strategy.wrap_params=1000000` says by what fsdp cuts it.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

TASKS = {"image": "AutoModelForImageClassification", "text": "AutoModelForSequenceClassification", "next_token": "AutoModelForCausalLM"}


def timm(
    name: str, num_classes: int = 10, channels: int = 3, pretrained: bool = False, options: Mapping[str, Any] | None = None
) -> nn.Module:
    """A model of https://github.com/huggingface/pytorch-image-models: (B, channels, H, W) to scores (B, num_classes). `pretrained`: with
    the weights that the package downloads. `options`: further keywords of timm.create_model. Raises ValueError naming the key."""
    package = _imported("timm", "pip install timm")
    if not name.startswith("hf-hub:") and not package.is_model(name):
        raise _unknown(name, "timm", package.list_models())
    return package.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=channels, **(options or {}))


def torchvision(name: str, num_classes: int = 10, weights: str | None = None, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A model of torchvision.models: (B, 3, H, W) to scores (B, num_classes). `weights`: those that the package downloads, as DEFAULT, with
    a last layer of its own. `options`: further keywords of torchvision.models.get_model. Raises ValueError naming the key."""
    package = _imported("torchvision.models", "pip install torchvision")
    if name not in package.list_models():
        raise _unknown(name, "torchvision", package.list_models())
    if weights is None:
        return package.get_model(name, num_classes=num_classes, **(options or {}))
    model = package.get_model(name, weights=weights, **(options or {}))
    last, layer = [(place, module) for place, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, own = last.rpartition(".")
    setattr(model.get_submodule(parent), own, nn.Linear(layer.in_features, num_classes))
    return model


def transformers(
    name: str,
    task: str = "image",
    num_classes: int | None = None,
    pretrained: bool = False,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A model of https://github.com/huggingface/transformers, which gives its scores alone: of images or texts (B, num_classes), of
    next_token (B, T, vocabulary). `name`: a kind (vit, bert, gpt2), a directory that save_pretrained left, or a name on the hub.
    `pretrained`: with the weights there, and not drawn ones. `options`: keywords of its configuration. Raises ValueError naming the key."""
    package = _imported("transformers", "pip install transformers")
    if task not in TASKS:
        raise ValueError(f"model.task={task}: not known; type one of {', '.join(TASKS)}")
    kinds = package.models.auto.configuration_auto.CONFIG_MAPPING
    if pretrained and name in kinds:
        raise ValueError(
            f"model.pretrained=true: {name} is a kind, and has no weights; type model.name= with a directory or a name on the hub"
        )
    asked = {**(options or {}), **({} if num_classes is None else {"num_labels": num_classes})}
    kind = getattr(package, TASKS[task])
    try:
        config = kinds[name](**asked) if name in kinds else package.AutoConfig.from_pretrained(name, **asked)
    except Exception as error:  # a stranger's constructor: it checks its keywords as it likes
        raise _refused(name, task, error, kinds) from error
    if unknown := _not_of(type(config), options or {}):
        near = difflib.get_close_matches(unknown, set(vars(config)) - {unknown}, 1)
        raise ValueError(f"model.options.{unknown}: {name} has no such keyword{f'; did you mean {near[0]}?' if near else ''}")
    try:
        made = kind.from_pretrained(name, config=config, ignore_mismatched_sizes=True) if pretrained else kind.from_config(config)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _refused(name, task, error, kinds) from error
    return Scores(made)


def _refused(name: str, task: str, error: Exception, kinds: Iterable[str]) -> ValueError:
    line = " ".join(str(error).split())[:160]
    near = difflib.get_close_matches(name, kinds, 1) if name not in kinds else []
    hint = f"; did you mean {near[0]}?" if near else ""
    return ValueError(f"model.name={name}: transformers has no such model for model.task={task} ({line}){hint}")


def _not_of(kind: Any, options: Mapping[str, Any]) -> str | None:
    """The first that the kind of configuration does not know: it takes any, and does nothing with it."""
    try:
        plain = kind()
    except Exception:  # one that cannot be without some
        return None
    return next((key for key in options if not hasattr(plain, key) and not hasattr(plain, f"_{key}")), None)


class Scores(nn.Module):
    """Of a model that returns many things, the scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.model(given).logits


def _imported(package: str, install: str) -> Any:
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError, OSError) as error:  # it is not there, or was built for another torch
        own, line = package.partition(".")[0], " ".join(str(error).split())[:160]
        raise ValueError(f"model: {own} is not installed, or not for torch {torch.__version__} ({line}); type {install}") from error


def _unknown(name: str, package: str, known: Iterable[str]) -> ValueError:
    near = difflib.get_close_matches(name, known, 3)
    return ValueError(f"model.name={name}: {package} has no such model{f'; did you mean {near[0]}?' if near else ''}")
