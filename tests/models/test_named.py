"""Models of other packages by their names. transformers is installed with the tests; timm and torchvision where they go with this torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from helpers import Launch
from torch import nn

from models import named

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 8, "patch_size": 4}


def test_a_kind_of_transformers_gives_scores_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = named.transformers("vit", num_classes=7, options=TINY)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 7)
    small = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 30}
    assert named.transformers("gpt2", task="next_token", options=small)(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 30)
    model.model.save_pretrained(tmp_path / "saved")
    again = named.transformers(str(tmp_path / "saved"), num_classes=7, pretrained=True)
    given = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(given), model.eval()(given))
    other = named.transformers(str(tmp_path / "saved"), num_classes=4, pretrained=True)
    assert other(given).shape == (2, 4), "a last layer of its own"
    assert not torch.equal(named.transformers(str(tmp_path / "saved"), num_classes=7).eval()(given), model(given)), "drawn"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "vitt"}, "model.name=vitt: transformers has no such model for model.task=image ("),
        ({"name": "vit", "pretrained": True}, "model.pretrained=true: vit is a kind, and has no weights"),
        ({"name": "vit", "task": "speech"}, "model.task=speech: not known; type one of image, text, next_token"),
        ({"name": "vit", "options": {"hiden_size": 8}}, "model.options.hiden_size: vit has no such keyword; did you mean hidden_size?"),
        ({"name": "vit", "options": {"hidden_size": "big"}}, "model.name=vit: transformers has no such model for model.task=image ("),
        ({"name": "gpt2", "task": "image"}, "model.name=gpt2: transformers has no such model for model.task=image ("),
    ],
)
def test_what_transformers_has_not_is_one_line(options: dict, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"^model") as failure:
        named.transformers(**options)
    assert str(failure.value).startswith(said)
    assert "\n" not in str(failure.value)


def test_a_kind_that_is_misspelt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"^model\.name=vitt: .*; did you mean vit\?$"):
        named.transformers("vitt")


class Made(nn.Module):
    """What a package would make, and what it was asked."""

    def __init__(self, name: str, **asked: object) -> None:
        super().__init__()
        self.name, self.asked = name, asked
        self.body, self.head = nn.Linear(3, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 1000))


def package(name: str, **held: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(held)
    return made


def test_timm_and_torchvision_are_asked_by_their_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for each: the packages themselves need a torch that they were built for."""
    known = SimpleNamespace(is_model=lambda name: name == "vit_tiny", list_models=lambda: ["vit_tiny", "resnet18"])
    monkeypatch.setitem(sys.modules, "timm", package("timm", create_model=Made, **vars(known)))
    monkeypatch.setitem(sys.modules, "torchvision", package("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", package("torchvision.models", get_model=Made, list_models=known.list_models))
    model = named.timm("vit_tiny", num_classes=4, channels=1, options={"drop_rate": 0.1})
    assert (model.name, model.asked) == ("vit_tiny", {"pretrained": False, "num_classes": 4, "in_chans": 1, "drop_rate": 0.1})
    with pytest.raises(ValueError, match=r"model.name=vit_tini: timm has no such model; did you mean vit_tiny?"):
        named.timm("vit_tini")
    model = named.torchvision("resnet18", num_classes=4)
    assert model.asked == {"num_classes": 4}
    model = named.torchvision("resnet18", num_classes=4, weights="DEFAULT")
    assert (model.asked, model.head[1].out_features, model.body.out_features) == ({"weights": "DEFAULT"}, 4, 5)
    with pytest.raises(ValueError, match=r"model.name=resnet19: torchvision has no such model; did you mean resnet18?"):
        named.torchvision("resnet19")


@pytest.mark.parametrize("make", [named.timm, named.torchvision])
def test_the_packages_themselves(make) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed, or not for this torch", exc_type=Exception)
    pytest.importorskip(make.__name__, reason=f"{make.__name__} is not installed")
    assert make("resnet18", num_classes=3)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_package_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"^model: timm is not installed, or not for torch .*; type pip install timm$"):
        named.timm("resnet18")


@pytest.mark.slow
@pytest.mark.timeout(100)
def test_one_trains(launch: Launch, tmp_path: Path) -> None:
    sizes = ",".join(f"{key}:{value}" for key, value in {**TINY, "image_size": 32, "patch_size": 8}.items())
    words = ("model=transformers", f"+model.options={{{sizes}}}", "data.source=standin", "train.batch_size=64", "train.steps=3")
    done = launch(*words, "data.train_samples=640", "data.validation=64", "train.eval_every=0", f"runs_dir={tmp_path}", "id=a", timeout=90)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("*/a")
    assert json.loads((run / "summary.json").read_text())["steps"] == 3
