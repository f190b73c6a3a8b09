"""The frozen config: what resolving and dumping the whole gives, by a shorter way where that can be told from the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import yaml
from helpers import Answer
from omegaconf import DictConfig, OmegaConf

from launcher.compose.compose import compose
from launcher.compose.freeze import freeze, frozen_text, resolve
from launcher.config import references, tree

Command = Callable[..., Answer]


@pytest.fixture(autouse=True)
def secret(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TEST_SECRET": "hunter2", "TEST_DIR": "/scratch/x", "TEST_USER": "me"}.items():
        monkeypatch.setenv(name, value)


def _composed(*words: str) -> DictConfig:
    found: list[DictConfig] = []
    compose(list(words), lambda config, overrides: found.append(config))
    return found[0]


TEXTS = (
    "name=a-${seed}",
    "name='${seed}'",
    "name=a-${train.clip_norm}  train.clip_norm=${seed}",
    "name=a-${data.root}  data.root='${oc.env:TEST_USER}'",
    "data.root='${oc.env:TEST_SECRET}/${name}'",
    "data.root='${oc.env:TEST_SECRET,other}'",
    "data.root='${oc.env:TEST_SECRET}/x'",
    "data.root='${oc.env:NOT_THERE,\"a b\"}'",
    "data.root='\\\\${seed}'",
    "data.root='$5 ${seed}'",
    "data.root='${oc.select:${oc.env:TEST_SECRET},x}'",
    "data.root='${.source}'",
    "data.root='${oc.decode:${oc.env:TEST_SECRET}}'",
    "+data.more={a:[${seed},'x${seed}',{b:${oc.env:TEST_SECRET}}],c:${optim}}",
    "+data.more=[]  +data.none=null  +data.long='" + "word " * 60 + "'",
    "+data.more=['1','true','2020-01-01','~','a: b','- a','ä€😀']",
    "id=x  name=a-${id}",
    "name=a-${id}",
    "runs_dir='${oc.env:TEST_DIR}'  train.steps=${seed}",
    "data.root='\\${oc.env:TEST_SECRET}'  data.cache='x\\\\${oc.env:TEST_SECRET}\\\\'",
    "data.root='${oc.env:NOT_THERE,null}'  data.cache='${oc.env:NOT_THERE,\"it\\'s {}\"}'",
    "data.root='${oc.env:${data.cache}}'  data.cache=TEST_SECRET",
)


def _woven(monkeypatch: pytest.MonkeyPatch, written: Any, values: Any) -> Any:
    """Without the shortcut."""
    with monkeypatch.context() as patch:
        patch.setattr(references, "_kept", lambda *_: tree.ABSENT)
        return references.frozen(written, values)


@pytest.mark.parametrize("text", TEXTS)
def test_the_frozen_text_is_what_resolving_and_dumping_the_whole_gives(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _composed(*text.split("  "))
    values = {**resolve(config), "id": "mine"}
    written: Any = {**cast("Any", OmegaConf.to_container(config)), "id": "mine"}
    kept = references.frozen(written, values)
    assert kept == _woven(monkeypatch, written, values)
    for _ in range(2):  # the second time from memory
        assert frozen_text(kept) == yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    assert "hunter2" not in frozen_text(kept)
    assert OmegaConf.to_container(OmegaConf.create(frozen_text(kept)), resolve=True) == values


def test_common_texts_are_kept_without_resolving_all_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: Any) -> Any:
        raise AssertionError("resolved again")

    monkeypatch.setattr(references, "_woven", slow)
    for words in ([], ["name=a-${seed}-${optim.lr}"], ["data.root=${oc.env:TEST_SECRET}/x"], ["runs_dir='${name}/b'", "name=c"]):
        assert "hunter2" not in freeze(_composed("+exp=cifar", *words), words).config
    with pytest.raises(AssertionError):
        freeze(_composed("data.root='${name}x${oc.env:TEST_SECRET}'"), [])
