"""`_target_` names code, and a config is untrusted text: what may be called is decided from source, before anything is imported."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Answer, Launch, refused

from launcher.config.targets import build, check, fits, signature
from launcher.errors import ConfigError

SOURCE = """
from __future__ import annotations
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from os import system as aliased

Path({mark!r}).touch()
assigned = os.system

@dataclass(frozen=True)
class Data:
    lr: float
    steps: int | None = None
    name: str = "x"
    kind: ClassVar[str] = "none"

class Init:
    def __init__(self, width: int = 8, *, bias: bool = True, part: Data | None = None, parts: list[int] = ()) -> None:
        self.given = dict(width=width, bias=bias, part=part, parts=parts)

class Base:
    pass

class Child(Init):
    pass

def function(model, lr: float = 0.1, /, factor: float = 1.0):
    return model, lr, factor

def anything(**rest):
    return rest

async def later():
    pass

if True:
    class Hidden:
        pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A package of the user's, and the file that appears when somebody imports its module."""
    name, mark = f"mine_{tmp_path.name.replace('-', '_')}", tmp_path / "imported"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "code.py").write_text(SOURCE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(tmp_path)
    return name, mark


@pytest.mark.parametrize(
    ("target", "annotations", "is_open"),
    [
        ("Data", {"lr": "float", "steps": "int | None", "name": "str"}, False),
        ("Init", {"width": "int", "bias": "bool", "part": "Data | None", "parts": "list[int]"}, False),
        ("Base", {}, False),
        ("Child", {}, True),
        ("function", {"model": "", "lr": "float", "factor": "float"}, False),
        ("anything", {}, True),
    ],
)
def test_a_signature_is_read_from_source(package: tuple[str, Path], target: str, annotations: dict[str, str], is_open: bool) -> None:
    name, mark = package
    found = signature(f"{name}.code.{target}")
    assert found is not None
    assert (dict(found.annotations), found.open) == (annotations, is_open)
    assert not mark.exists()


@pytest.mark.parametrize(
    "target", ["os", "aliased", "assigned", "Path", "os.system", "later", "Hidden", "Init.__init__", "missing", "nope.x"]
)
def test_what_a_module_only_imports_or_assigns_is_no_target(package: tuple[str, Path], target: str) -> None:
    name, mark = package
    with pytest.raises(ConfigError, match="no such class or function"):
        check({"model": {"_target_": f"{name}.code.{target}"}}, [name])
    assert not mark.exists()


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": "code.Init", "widthh": 3}, "model.widthh: .*Init takes no such keyword; did you mean width?"),
        ({"_target_": "code.Init", "width": "wide"}, "model.width='wide' is not of type int"),
        ({"_target_": "code.Init", "bias": 1}, "model.bias=1 is not of type bool"),
        ({"_target_": "code.Base", "x": 1}, "model.x: .*Base takes no such keyword"),
        ({"_target_": "code.Data", "kind": "x"}, "model.kind: .*Data takes no such keyword"),
        (
            {"_target_": "code.anything", "inner": {"_target_": "os.system", "command": "true"}},
            "model.inner._target_='os.system' is refused",
        ),
        ({"_target_": "code.anything", "inner": [{"a": {"_target_": "os.system"}}]}, r"model.inner\[0\].a._target_='os.system' is refused"),
        (
            {"_target_": "code.anything", "inner": {"_target_": "code.Innit"}},
            "model.inner._target_.*no such class or function; did you mean Init?",
        ),
    ],
)
def test_a_bad_node_is_refused_before_anything_is_imported(package: tuple[str, Path], node: dict[str, Any], said: str) -> None:
    name, mark = package
    with pytest.raises(ConfigError, match=said):
        check({"model": _in(name, node)}, [name])
    assert not mark.exists()
    assert not [module for module in sys.modules if module.startswith(name)]


def _in(package: str, node: Any) -> Any:
    """`code.X` of a row as a target in `package`."""
    if isinstance(node, dict):
        return {
            key: f"{package}.{value}" if key == "_target_" and value.startswith("code.") else _in(package, value)
            for key, value in node.items()
        }
    return [_in(package, item) for item in node] if isinstance(node, list) else node


def test_a_good_node_is_imported_by_build_alone_nested_targets_first(package: tuple[str, Path]) -> None:
    name, mark = package
    node = _in(name, {"_target_": "code.Init", "width": 3, "part": {"_target_": "code.Data", "lr": 0.5}, "parts": [1, 2]})
    check({"model": node}, [name])
    assert not mark.exists()
    made = build(node, bias=False)
    assert mark.exists()
    assert (made.given["width"], made.given["bias"]) == (3, False)
    assert (made.given["part"].lr, made.given["parts"]) == (0.5, [1, 2])


def test_the_launchers_own_groups_need_no_trust_and_share_nothing() -> None:
    check({"model": {"_target_": "models.resnet.resnet8", "width": 4}, "optim": {"_target_": "torch.optim.SGD", "lr": 0.1}}, [])
    for group, target in (
        ("optim", "models.resnet.resnet8"),
        ("model", "launcher.clusters.local.Local"),
        ("train", "models.resnet.resnet8"),
    ):
        with pytest.raises(ConfigError, match="is refused: targets here come from"):
            check({group: {"_target_": target}}, [])


def test_source_that_is_no_python_is_the_users_one_line(package: tuple[str, Path], tmp_path: Path) -> None:
    name, _ = package
    (tmp_path / name / "torn.py").write_text("def f(:\n")
    with pytest.raises(ConfigError, match=f"{name}.torn cannot be read as Python: .*line 1"):
        check({"model": {"_target_": f"{name}.torn.f"}}, [name])


@pytest.mark.parametrize(
    ("value", "annotation", "fit"),
    [
        (1, "int", True),
        (True, "int", False),
        (1.0, "int", False),
        ("1", "int", False),
        (1, "float", True),
        (True, "float", False),
        ("nan", "float", False),
        (None, "float", False),
        (True, "bool", True),
        (1, "bool", False),
        ("", "str", True),
        (5, "str", False),
        (None, "int | None", True),
        ("auto", "int | str", True),
        (1.5, "int | str", False),
        (None, "int | str", False),
        ([1], "Sequence[int]", True),
        ("x", "Sequence[int]", True),
        ("x", "Path", True),
        ("x", "int | Path", True),
        ("x", "", True),
    ],
)
def test_a_value_fits_its_annotation_or_does_not(value: object, annotation: str, fit: bool) -> None:
    assert fits(value, annotation) is fit


ATTACKS = (
    "os.system",
    "posix.system",
    "builtins.exec",
    "subprocess.Popen",
    "pathlib.Path.write_text",
    "torch.hub.load",
    "torch.load",
    "torch.utils.cpp_extension.load_inline",
    "torch.optim.Optimizer.__init__",
    "data.cifar10.os.system",
    "models.resnet.torch.load",
    "models.resnet.nn",
    "modelsx.resnet.resnet8",
    "launcher.clusters.submit.start",
    "launcher.config.targets.build",
    "hydra.utils.instantiate",
    "models",
    "models..resnet",
    "models.resnet.resnet8()",
    "models.resnet;import os",
    "..models.resnet",
    "",
    5,
    None,
    ["os.system"],
)


@pytest.mark.parametrize("target", ATTACKS)
def test_an_attack_through_target_is_refused(target: object) -> None:
    for config in ({"model": {"_target_": target}}, {"optim": {"_target_": "torch.optim.SGD", "extra": [{"_target_": target}]}}):
        with pytest.raises(ConfigError, match="_target_="):
            check(config, [])


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is there")
def test_what_names_its_group_is_said_as_it_is() -> None:
    with pytest.raises(ConfigError, match=r"^model: timm is not installed"):
        build({"_target_": "models.named.timm", "name": "resnet18"})


@pytest.mark.parametrize(
    ("target", "way"),
    [
        ("mylab.net.Net", "to allow your own package, put `trust: [mylab]` into conf/local/machine.yaml"),
        ("yaml.safe_load", "yaml is installed and no package of your own: name a class of yours that makes it"),
    ],
)
def test_the_way_that_is_told_is_one(target: str, way: str) -> None:
    """`trust` takes no package that is installed."""
    with pytest.raises(ConfigError, match=re.escape(way) + "$"):
        check({"model": {"_target_": target}}, [])


@pytest.mark.parametrize(
    "words",
    [
        ("model._target_=os.system",),
        ("model._target_=[os.system]",),
        ("model._target_=null",),
        ("+model.inner={_target_: os.system, command: ls}",),
        ("+model.inner=[{_target_: os.system}]",),
        ("+train._target_=os.system",),
        ("+_target_=os.system",),
        ("+foo={_target_: os.system}",),
        ("optim._target_=torch.optim.lr_scheduler.LambdaLR",),
        ("cluster._target_=subprocess.Popen",),
        ("strategy._target_=launcher.verbs.run.run",),
        ("task._target_=launcher.train.work.work",),
        ("hydra.launcher._target_=os.system",),
        ("+hydra.callbacks.x._target_=os.system",),
        ("model._target_=pathlib.Path.touch", "+hydra.callbacks.x=${model}"),
        ("+model@hydra.callbacks.x=net",),
        ("+hydra={callbacks: {x: ${model}}}",),
        ("+hydra.job_logging={version: 1, handlers: {h: {class: subprocess.Popen, args: [touch, x]}}}",),
        ("hydra/job_logging=stdout",),
        ("hydra.sweeper.params={trust: '[os]'}",),
        ("hydra.searchpath=[pkg://antigravity]",),
        ("--config-path=pkg://antigravity",),
    ],
    ids=" ".join,
)
def test_an_attack_from_another_side_is_refused(
    words: tuple[str, ...], command: Callable[..., Answer], toy_words: tuple[str, ...], tmp_path: Path
) -> None:
    refused(command("plan", *toy_words, *words), 2)
    assert list(tmp_path.iterdir()) == []
    assert "antigravity" not in sys.modules


SPELLINGS = (
    "trust=[os]",
    "+trust=[os]",
    "++trust=[os]",
    "~trust",
    "trust.0=os",
    "++trust.0=os",
    "trust[0]=os",
    "trust@x=os",
    "trust=${x}",
    "trust",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("multirun", [(), ("-m",)], ids=["one", "sweep"])
def test_no_spelling_of_trust_works_on_the_command_line(
    spelling: str, multirun: tuple[str, ...], command: Callable[..., Answer], toy_words: tuple[str, ...]
) -> None:
    refused(command(*multirun, *toy_words, spelling), 2, "trust: only a file may say which code is trusted")


def test_a_real_process_refuses_before_it_imports(launch: Launch, toy_words: tuple[str, ...], package: tuple[str, Path]) -> None:
    name, mark = package  # importable there: the working directory is on the path of `python -m`
    done = launch("plan", *toy_words, f"model._target_={name}.code.Init")
    refused(Answer(done.returncode, done.stdout, done.stderr), 2, f"model._target_='{name}.code.Init' is refused", f"trust: [{name}]")
    assert not mark.exists()
