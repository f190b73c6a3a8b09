"""`script=` before anything starts: what is refused, what its config and its script look like, what a batch job copies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers import Command, refused

from launcher.code import snapshot


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("print(1)")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["script=nothing.py"], ["script=", "nothing.py is not there", "script.module=true"]),
        (["script=."], ["is a directory; name the file in it"]),
        (["script=plain"], ["chmod +x"]),
        (["script=train.py", "model=mlp"], ["model: it is the trainer's", "script.args=[--model"]),
        (["script=train.py", "train.epochs=3"], ["train: it is the trainer's"]),
        (["script=train.py", "seed=3"], ["seed: it is the trainer's"]),
        (["script=train.py", "script.arg=[1]"], ["script.arg", "script.args"]),
        (["script=train.py", "script.args=3"], ["script.args=3"]),
        (["script=train.py", "script.args=[null]"], ["script.args: null is no word"]),
        (["script=train.py", "script.args=[[1]]"], ["script.args"]),
        (["script=train.py", "script.stop_signal=KILL"], ["script.stop_signal=KILL", "USR1"]),
        (["script=train.py", "script.progress=step"], ["script.progress", "(?P<step>[0-9]+)"]),
        (["script=train.py", "script.progress='(?P<step>'"], ["script.progress", "(?P<step>[0-9]+)"]),
        (["script=../x", "script.module=true"], ["no name of a module"]),
        (["script.args=[1]"], ["type script=train.py"]),
        (["script=train.py", "cluster.processes_per_node=0"], ["cluster.processes_per_node=0"]),
    ],
)
def test_what_cannot_be_meant_is_one_line(here: Path, command: Command, words: list[str], said: list[str]) -> None:
    (here / "plain").write_text("no program")
    refused(command("render", *words), 2, *said)
    assert not (here / "runs").exists()


@pytest.mark.parametrize("verb", [("data",), ("doctor",), ("drill", "crash"), ("bench", "device")])
def test_a_verb_that_needs_the_trainer_says_so(here: Path, command: Command, verb: tuple[str, ...]) -> None:
    refused(command(*verb, "script=train.py", "cluster.device=cpu"), 2, f"{' '.join(verb[: 2 if verb[0] == 'bench' else 1])}: script=")


def test_its_config_has_nothing_of_the_trainer(here: Path, command: Command) -> None:
    answer = command("plan", "script=train.py", "script.args=[--lr,'${lr}',1e-3]", "+lr=0.5", "cluster.device=cpu")
    assert answer.code == 0, answer
    for key in ("model", "data", "loader", "optim", "train", "seed"):
        assert f"\n{key}:" not in answer.out
    script = command("render", "script=train.py", "cluster.device=cpu")
    assert "--module launcher.scripted" in script.out
    assert "--rdzv-backend=one-node-port" in script.out


def test_a_run_of_the_trainer_has_nothing_of_it(command: Command) -> None:
    answer = command("plan", "cluster.device=cpu")
    assert answer.code == 0, answer
    assert "\nscript:" not in answer.out
    assert "launcher.scripted" not in command("render", "cluster.device=cpu").out


def test_a_batch_job_copies_what_lies_beside_it(here: Path) -> None:
    place = here / "examples"
    (place / "tools").mkdir(parents=True)
    for name in ("train.py", "tools/more.py", "weights.bin"):
        (place / name).write_text("1")
    subprocess.run(["git", "init", "-q", str(here)], check=True)
    (here / ".gitignore").write_text("*.bin\n")
    (here / "README").write_text("not beside it")
    names = {name for name, _ in snapshot.find(here, [], place).files}
    assert {f"{snapshot.SCRIPT}/train.py", f"{snapshot.SCRIPT}/tools/more.py"} <= names
    assert not any(name.startswith(f"{snapshot.SCRIPT}/") and name.endswith((".bin", "README")) for name in names)


def test_a_literal_path_is_no_call_and_no_sweep(here: Path, command: Command) -> None:
    name = "a,b (1)=x.py"
    (here / name).write_text("print(1)")
    answer = command("plan", f"script={name}", "cluster.device=cpu")
    assert answer.code == 0, answer
    assert name in answer.out
