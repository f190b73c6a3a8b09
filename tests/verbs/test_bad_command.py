"""The rest of a command that cannot be meant: verbs, the environment, runs_dir, sweeps, existing runs; and real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import Answer, Launch, refused

from launcher.compose.compose import compose
from launcher.compose.freeze import Frozen, freeze
from launcher.rundir.rundir import create

Command = Callable[..., Answer]

VERBS = (
    (("rnu",), "rnu: no such verb; did you mean run?"),
    (("rendr", "+exp=toy"), "rendr: no such verb; did you mean render?"),
    (("stats",), "stats: no such verb; did you mean status?"),
    (("log", "x"), "log: no such verb; did you mean logs?"),
    (("tensorbord",), "tensorbord: no such verb; did you mean tensorboard?"),
    (
        ("voc",),
        "voc: no such verb; it takes bench, cancel, collect, compare, data, doctor, drill, evaluate, export, logs, plan, plot, predict, "
        "render, resume, run, serve, status, tensorboard, why",
    ),
    (("status", "a", "b"), "status takes no run"),
    (("status", "nope"), "nope: no such run; `python -m launcher status` lists them"),
    (("status", "../../etc"), "../../etc: no such run"),
    (("resume",), "resume takes one run"),
    (("resume", "a", "b"), "resume takes one run"),
    (("resume", "$(touch x)"), "$(touch x): no such run"),
    (("evaluate",), "evaluate takes one run"),
    (("evaluate", "nope"), "nope: no such run"),
    (("logs",), "logs:", "run"),
    (("logs", "nope"), "nope: no such run"),
    (("logs", "nope", "--rank", "x"), "--rank", "'x'"),
    (("logs", "nope", "--bogus"), "--bogus"),
    (("tensorboard",), "no runs yet; start one with"),
    (("render", "-m", "+exp=toy"), "render shows one run; leave out --multirun"),
    (("plan", "--multirun"), "plan shows one run"),
)


@pytest.mark.parametrize("row", VERBS, ids=lambda row: " ".join(row[0]))
def test_a_verb_that_is_misspelt_or_misused(row: tuple[tuple[str, ...], str], command: Command) -> None:
    refused(command(*row[0]), 2, *row[1:])


ENVIRONMENT = (
    ("WORLD_SIZE", "abc"),
    ("WORLD_SIZE", "1e3"),
    ("WORLD_SIZE", "$(touch x)"),
    ("MASTER_PORT", "99999"),
    ("MASTER_PORT", "-1"),
    ("RANK", "-1"),
    ("LOCAL_RANK", ""),
)


@pytest.mark.parametrize(("name", "value"), ENVIRONMENT)
def test_a_rank_variable_that_is_garbage(
    name: str, value: str, command: Command, toy_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    refused(command(*toy_words), 2, f"{name}={value!r} in the environment", f"type: unset {name}")


def test_a_rank_variable_that_is_none_of_ours_is_ignored_and_says_so(
    command: Command, toy_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    answer = command(*toy_words, "train.epochs=0")
    assert answer.err.splitlines()[0].startswith("launcher: warning: WORLD_SIZE=8 from the environment is ignored")
    refused(answer, 2, "train.epochs=0")


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nope"])
@pytest.mark.parametrize("multirun", [(), ("-m",)], ids=["one", "sweep"])
def test_a_runs_dir_that_cannot_be_written(
    place: str, multirun: tuple[str, ...], command: Command, toy_words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    refused(command(*multirun, *toy_words, f"runs_dir={tmp_path / place}"), 3, f"{tmp_path / place}", "choose another with runs_dir=")
    assert (tmp_path / "file").read_text() == "mine"


def test_every_member_of_a_sweep_that_is_refused_says_why(command: Command, toy_words: tuple[str, ...], tmp_path: Path) -> None:
    answer = command("-m", *toy_words, "optim.lr=-1,nan")
    assert answer.code == 2
    assert len(answer.lines) == 3
    assert all(text in line for text, line in zip(("optim.lr=-1 cannot be", "optim.lr=nan is not", "2 of the"), answer.lines, strict=True))
    assert not (tmp_path / "runs").exists()


def _frozen(words: tuple[str, ...]) -> Frozen:
    made: list[Frozen] = []
    compose(list(words), lambda config, overrides: made.append(freeze(config, overrides)))
    return made[0]


def test_an_existing_run_with_another_config_names_what_differs(command: Command, toy_words: tuple[str, ...], tmp_path: Path) -> None:
    command("plan", *toy_words)  # sets the environment up
    frozen = _frozen((*toy_words, "id=mine"))
    here = create(Path(frozen.plan.run_dir))
    here.freeze(frozen.plan, frozen.config, frozen.script)
    before = {path: path.read_bytes() for path in here.path.rglob("*") if path.is_file()}
    refused(command(*toy_words, "id=mine", "train.epochs=7", "optim.lr=0.2"), 2, "id=mine", "train.epochs: 4 -> 7", "optim.lr: 0.05 -> 0.2")
    assert {path: path.read_bytes() for path in here.path.rglob("*") if path.is_file()} == before
    here.plan.write_text("{}")
    refused(command("resume", str(here)), 3, "plan.json is not a plan")
    here.plan.write_text(frozen.plan.to_json())
    here.config.write_text("a: [")
    refused(command("resume", str(here)), 3, "config.yaml is not readable as YAML")
    here.config.write_text(yaml.safe_dump({"cluster": {"_target_": "os.system"}, "trust": []}))
    refused(command("resume", str(here)), 2, "cluster._target_='os.system' is refused")


REAL = (
    (("train.epch=3",), {}, 2, "train.epch: no such key; did you mean train.epochs?"),
    (("optim.lr=nan",), {}, 2, "optim.lr=nan is not a finite number"),
    (("+exp=cifr",), {}, 2, "exp=cifr: no such choice; did you mean cifar?"),
    (("name=${nope}",), {}, 2, "name: Interpolation key 'nope' not found"),
    (("stats",), {}, 2, "stats: no such verb; did you mean status?"),
    (("+exp=cifar",), {"WORLD_SIZE": "abc"}, 2, "WORLD_SIZE='abc' in the environment"),
)


@pytest.mark.parametrize("row", REAL, ids=lambda row: row[0][0])
def test_the_real_process_says_the_same(row: tuple[Any, ...], launch: Launch, tmp_path: Path) -> None:
    words, env, code, part = row
    done = launch(*words, env=env)
    refused(Answer(done.returncode, done.stdout, done.stderr), code, part)
    assert list(tmp_path.iterdir()) == []


def test_launcher_debug_shows_the_traceback_that_is_hidden_otherwise(launch: Launch) -> None:
    done = launch("rnu", env={"LAUNCHER_DEBUG": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "no such verb" in done.stderr
