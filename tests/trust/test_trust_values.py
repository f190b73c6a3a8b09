"""Values of a kind that nobody thought of are one line and exit code 2, and no traceback: of a command line, a yaml, a scheduler."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers import Command, Launch, refused, refused_process
from test_render import PLAN

from launcher.clusters.slurm import Slurm, array, limits, scheduler
from launcher.errors import RunError
from launcher.plan import Plan

WORDS = [
    "strategy=[1]", "cluster=[1]", "model=[1,2]", "+exp=[1]", "task=[null]", "strategy=1.5", "cluster=true", "cluster=[]",
    "cluster={true:1}", "model={true:1}", "+model.x={1:2}", "data={null:3}", "train=null", "train=[1]", "runs_dir=null", "runs_dir=[1]",
    "runs_dir={a:1}", "name=[1]", "id={a:1}", "seed=[1]", "resume={a:1}", "objective=[1]", "cluster.nodes=[1]",
    "cluster.processes_per_node=null", "cluster.max_restarts=null", "optim.lr={a:1}", "model=${model}", "optim.lr=${optim.lr}",
]  # fmt: skip
YAMLS = {
    "a truth value": "true: 1\n_target_: models.resnet.resnet8",
    "a number": "1: 2\n_target_: models.resnet.resnet8",
    "not a number": ".nan: 2\n_target_: models.resnet.resnet8",
    "null": "null: 2\n_target_: models.resnet.resnet8",
    "a list for a key": "? [1, 2]\n: 3",
    "a list": "[1, 2]",
    "itself": "a: &a [*a]",
    "itself below": "_target_: models.resnet.resnet8\nwidth: &a {b: *a}",
    "itself at all": "&a {b: *a}",
    "deep": "a: " + "[" * 3000 + "]" * 3000,
    "deep maps": "{a: " * 800 + "1" + "}" * 800,
    "an object": "a: !!python/object:os.x 1",
}
EXPS = {
    "model: {true: 1}", "model: 3", "model: null", "cluster: null", "cluster: {1: 2}", "strategy: 4", "data: {true: false}", "task: null",
    "optim: &a {_target_: torch.optim.SGD, lr: *a}", "objective: &a {metric: *a}", "runs_dir: null", "runs_dir: [1]", "train: {1: 2}",
    "defaults: [{override /model: [1]}]", "defaults: 3", "defaults: [[a]]",
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS)
def test_a_word(word: str, command: Command) -> None:
    refused(command("plan", word), 2, word.lstrip("+").partition("=")[0].partition(".")[0])


_OF_PYTHON = re.compile(r"NoneType|'(int|float|bool|list|dict|str)'|iterable|subscriptable|(Dict|List)Config|positional|attribute")


@pytest.mark.parametrize(("word", "said"), [
    ("strategy=[1]", "type strategy= and one of cp, ddp"), ("cluster=true", "type cluster= and one of local, slurm"),
    ("model=[1,2]", "type model= and one of cnn"), ("+exp=[cifar,null]", "type exp= and one of cifar"),
    ("task=1.5", "type task= and one of classification"), ("data={null:3}", "a key there is no text"),
    ("train=[1]", "type key=value for each"), ("train=null", "leave it out"),
])  # fmt: skip
def test_the_line_says_what_to_type_and_nothing_of_pythons_kinds(word: str, said: str, command: Command) -> None:
    answer = command("plan", word)
    refused(answer, 2, word, said)
    assert not _OF_PYTHON.search(answer.err), answer.err


@pytest.mark.parametrize("change", [{"world": 7}, {"world": [1]}, {"env": 3}, {"env": [["a"]]}, {"overrides": 1}, {"packages": None}, None])
def test_neither_does_what_refuses_a_plan(change: dict[str, object] | None) -> None:
    whole = json.loads(PLAN.to_json())
    text = json.dumps({**whole, **change} if change else {key: value for key, value in whole.items() if key != "world"})
    with pytest.raises(RunError, match="not a plan this launcher can read") as error:
        Plan.from_json(text, "plan.json")
    assert not _OF_PYTHON.search(str(error.value)), error.value


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_a_yaml_of_a_group(text: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "x.yaml").write_text(text)
    refused(command("plan", "--config-dir", "mine", "model=x"), 2)


@pytest.mark.parametrize("text", sorted(EXPS))
def test_a_yaml_of_an_experiment(text: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "exp").mkdir(parents=True)
    (tmp_path / "mine" / "exp" / "x.yaml").write_text(f"# @package _global_\n{text}\n")
    refused(command("plan", "--config-dir", "mine", "+exp=x"), 2)


@pytest.mark.parametrize("words", [
    ("strategy=[1]",), ("cluster=[1]",), ("runs_dir=~a",), ("runs_dir='~`a`'",),
    ("--config-dir=mine", "+exp=x"), ("--config-dir=mine", "model=x"),
], ids=" ".join)  # fmt: skip
def test_as_a_process(words: tuple[str, ...], launch: Launch, tmp_path: Path) -> None:
    for name, text in (("exp/x", "# @package _global_\nmodel: {true: 1}\n"), ("model/x", "a: &a [*a]\n")):
        (tmp_path / "mine" / name).parent.mkdir(parents=True)
        (tmp_path / "mine" / f"{name}.yaml").write_text(text)
    refused_process(launch("render", *words), 2)


@pytest.mark.parametrize("word", [
    "runs_dir=~a", "runs_dir=~a/b", "data.root=~nobody-of-that-name/x", "data.cache='~a/x'", "+cluster.env.A=~a/x", "--config-dir=~a",
])  # fmt: skip
def test_a_home_that_is_not_there_is_one_line(word: str, command: Command) -> None:
    refused(command("plan", word), 2, word.lstrip("+").partition("=")[0], "there is no user")


@pytest.mark.parametrize("word", ["x", "", "-1", "1e3", "1" * 5000, "٣", "1001 "])
def test_a_number_of_a_scheduler_that_is_none(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "settings", lambda clusters: {"MaxArraySize": word})
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert array._most_members("") == array.DEFAULT_MAX_ARRAY_SIZE
    limits.check(
        Slurm(device="cpu"),
        {"a": dict.fromkeys(("MinNodes", "MaxNodes", "TotalCPUs", "MaxTime", "TRES"), word) | {"Default": "YES"}},
    )
