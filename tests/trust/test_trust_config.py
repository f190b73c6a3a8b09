"""A config is text from anywhere: of what it says about Hydra itself, about where files lie and about trust, only what may be is taken."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import PROJECT, Command, Launch, refused, refused_process
from hydra.core.config_store import ConfigStore

from launcher import CONF
from launcher.config.targets import check_trust
from launcher.errors import ConfigError

SHOW = ("--cfg", "job")


@pytest.fixture
def mine(command: Command, tmp_path: Path) -> Callable[..., Path]:
    """Writes files below a directory `mine`, in which the toy is too; an exp gets its first line."""
    place = tmp_path / "mine"

    def write(text: str = "", name: str = "exp/x.yaml", **more: str) -> Path:
        for path, content in {name: text, **{key.replace("__", "/") + ".yaml": value for key, value in more.items()}}.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            head = "# @package _global_\n" if path.startswith(("exp/", "local/")) and "@package" not in content else ""
            (place / path).write_text(head + content)
        return place

    return write


# ---------------------------------------------------------------- 1: Hydra's own sections

RUNS = "{_target_: toyproject.net.Net, canary: canary}"
HYDRA = {
    "callback": ("hydra: {callbacks: {x: {_target_: mine.Runs}}}", "hydra.callbacks.x._target_"),
    "no target": ("hydra: {callbacks: {x: {a: 1}}}", "hydra.callbacks.x.a"),
    "handlers": ("hydra: {job_logging: {handlers: {h: {(): os.mkdir, path: canary}}}}", "hydra.job_logging.handlers.h.()"),
    "ext": ("hydra: {job_logging: {handlers: {h: {class: logging.FileHandler, filename: ext://sys.path}}}}", "hydra.job_logging"),
    "truncate": ("hydra: {job_logging: {handlers: {h: {class: logging.FileHandler, filename: canary, mode: w}}}}", "hydra.job_logging"),
    "hydra_logging": ("hydra: {hydra_logging: {root: {level: DEBUG}}}", "hydra.hydra_logging.root.level"),
    "env_set": ("hydra: {job: {env_set: {PATH: /tmp}}}", "hydra.job.env_set.PATH"),
    "env_copy": ("hydra: {job: {env_copy: [HOME]}}", "hydra.job.env_copy[0]"),
    "chdir": ("hydra: {job: {chdir: true}}", "hydra.job.chdir"),
    "output_subdir": ("hydra: {output_subdir: canary}", "hydra.output_subdir"),
    "run dir": ("hydra: {run: {dir: canary}}", "hydra.run.dir"),
    "sweep dir": ("hydra: {sweep: {dir: canary}}", "hydra.sweep.dir"),
    "sweeper": ("hydra: {sweeper: {_target_: toyproject.net.Net}}", "hydra.sweeper._target_"),
    "sampler": ("hydra: {sweeper: {sampler: {_target_: toyproject.net.Net}}}", "hydra.sweeper.sampler._target_"),
    "a space": ("hydra: {sweeper: {custom_search_space: os.system}}", "hydra.sweeper.custom_search_space"),
    "launcher": ("hydra: {launcher: {_target_: toyproject.net.Net}}", "hydra.launcher._target_"),
    "set-up": ("hydra: {launcher: {setup: [touch canary]}}", "hydra.launcher.setup[0]"),
    "help": ("hydra: {help: {template: '${oc.env:HOME}'}}", "hydra.help.template"),
    "hydra_help": ("hydra: {hydra_help: {template: x}}", "hydra.hydra_help.template"),
    "all of it": ("hydra: ${data}", "Interpolation key 'data'"),
    "interpolated": ("hydra: {callbacks: '${data}'}", "hydra.callbacks"),
    "dots": ("hydra: {sweeper: {params.x: {_target_: a.b}}}", "hydra.sweeper"),
    "verbose": ("hydra: {verbose: true}", "hydra.verbose"),
    "searchpath": ("hydra: {searchpath: [structured://antigravity]}", "hydra.searchpath"),
    "params: trust": ("hydra: {sweeper: {params: {trust: '[os]'}}}", "trust: only a file"),
    "params: hydra": ("hydra: {sweeper: {params: {+hydra.callbacks.x._target_: a.b}}}", "+hydra.callbacks.x._target_: Hydra's own"),
    "params: path": ("hydra: {sweeper: {params: {+exp: ../../x}}}", "+exp=../../x: a choice is the name"),
    "params: all": ("hydra: {sweeper: {params: '${data}'}}", "hydra.sweeper.params"),
    "package": ("# @package hydra\ncallbacks: {x: {_target_: a.b}}", "hydra.callbacks.x._target_"),
    "deep package": ("# @package hydra.job.env_set\nA: b", "hydra.job.env_set.A"),
    "launcher by name": ("defaults: [override /hydra/launcher: mine]", "hydra/launcher/mine"),
    "callbacks by name": ("defaults: [override /hydra/callbacks: mine]", "hydra/callbacks/mine"),
    "a sweeper's file": ("defaults: [override /hydra/sweeper: mine]", "hydra/sweeper/mine"),
    "placed there": ("defaults: [/optim@hydra.callbacks.x: sgd]", "hydra.callbacks.x"),
}
FILES = {
    "hydra__launcher__mine": "_target_: a.b",
    "hydra__callbacks__mine": "x: {_target_: a.b}",
    "hydra__sweeper__mine": "_target_: a.b",
}


HOWS = [("plan",), ("-m", "seed=1,2", "cluster=slurm"), ("--cfg=job",)]
"""Nothing is trained where a guard is taken out: there is no SLURM."""


@pytest.mark.parametrize(("door", "how"), [(door, HOWS[number % 3]) for number, door in enumerate(HYDRA)], ids=lambda part: "".join(part))
def test_a_file_says_nothing_of_hydra(door: str, how: tuple[str, ...], mine: Callable[..., Path], command: Command, tmp_path: Path) -> None:
    text, said = HYDRA[door]
    mine(text, **FILES)
    refused(command(*how[:1], "--config-dir", "mine", "+exp=x", *how[1:]), 2, said)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_that_takes_the_place_of_hydras_own_is_refused(mine: Callable[..., Path], command: Command) -> None:
    mine("callbacks: {x: {_target_: a.b}}", "hydra/config.yaml")
    refused(command("plan", "--config-dir", "mine"), 2)


PLANTED = {
    "callback": "hydra: {callbacks: {x: {_target_: planted.Runs}}}",
    "handler": "hydra: {job_logging: {handlers: {h: {(): planted.Runs}}, root: {handlers: [h]}}}",
    "ext": "hydra: {job_logging: {version: 1, handlers: {h: {class: logging.StreamHandler, stream: ext://planted.Runs}}}}",
    "truncate": "hydra: {job_logging: {version: 1, handlers: {h: {class: logging.FileHandler, filename: canary}}, root: {handlers: [h]}}}",
    "launcher": "hydra: {launcher: {_target_: planted.Runs}}",
    "sweeper": "hydra: {sweeper: {_target_: planted.Runs}}",
}


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, str]:
    """An environment in which `planted` can be imported, which leaves a canary."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "planted.py").write_text(
        f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Runs:\n    def __init__(self, **given): ...\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "lib"), str(PROJECT), str(PROJECT.parent.parent)])}


@pytest.mark.parametrize("door", PLANTED)
def test_nothing_of_hydras_own_runs(door: str, mine: Callable[..., Path], launch: Launch, planted: dict[str, str], tmp_path: Path) -> None:
    """As a process, with a class that Hydra would find."""
    mine(PLANTED[door])
    refused_process(launch("-m", "--config-dir", "mine", "+exp=x", "seed=1,2", "cluster=slurm", env=planted), 2, "exp/x: hydra.")
    assert not (tmp_path / "canary").exists()


OF_HYDRA = (
    *("+hydra.callbacks.x._target_=planted.Runs", "hydra.job.chdir=true", "hydra.run.dir=canary", "hydra.output_subdir=canary"),
    *("+hydra.job.env_set.A=b", "~hydra.job_logging", "hydra/job_logging=default", "+optim@hydra.callbacks.x=sgd", " hydra.verbose=true"),
)


@pytest.mark.parametrize(
    ("word", "how"), [(word, HOWS[number % 3]) for number, word in enumerate(OF_HYDRA)], ids=lambda part: "".join(part)
)
def test_a_word_says_nothing_of_hydra(word: str, how: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    refused(command(*how[:1], word, *how[1:]), 2, "Hydra's own config names code to run and is not for the command line")
    assert list(tmp_path.iterdir()) == []


CHOICES = (
    *("job_logging: default", "job_logging: stdout", "hydra_logging: default", "hydra_logging: hydra_debug"),
    *("launcher: installed", "callbacks: installed"),
)


@pytest.mark.parametrize("choice", CHOICES)
def test_of_what_hydra_and_its_plugins_bring_only_a_sweeper_is_chosen(
    choice: str, mine: Callable[..., Path], command: Command, tmp_path: Path
) -> None:
    for group in ("launcher", "callbacks"):
        ConfigStore.instance().store(group=f"hydra/{group}", name="installed", node={"x": {"_target_": "plugin.Runs"}}, provider="p")
    where = mine(f"defaults: [schema, override hydra/{choice}]", "main.yaml")
    answer = command("--config-path", str(where), "--config-name=main", "--cfg=job")
    refused(answer, 2, "of Hydra's own config only an installed sweeper can be chosen")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_a_file_may_say_of_a_sweep_is_taken(mine: Callable[..., Path], command: Command) -> None:
    store = ConfigStore.instance()
    store.store(
        group="hydra/sweeper", name="installed", node={"_target_": "plugin.Sweeper", "n_trials": 3, "direction": "minimize"}, provider="p"
    )
    mine(
        "defaults: [override /hydra/sweeper: installed]\n"
        "hydra: {sweeper: {n_trials: 20, direction: maximize, params: {seed: 'range(1,9)', +model.extra: 'choice(a,b)'}},"
        " job: {name: launcher}, run: {dir: .}, output_subdir: null}\n"
    )
    answer = command("--config-dir", "mine", "+exp=x", "--cfg=hydra")
    assert answer.code == 0, answer
    assert "n_trials: 20" in answer.out
    assert "_target_: plugin.Sweeper" in answer.out


# ---------------------------------------------------------------- 2: which files there are

PATHS = (
    *(
        "+exp=../../x",
        "+exp=../mine/exp/x",
        "exp=/tmp/x",
        "+exp=[cifar,../x]",
        "local=../exp/cifar",
        "+local=../../x",
        "model=../model/resnet8",
    ),
    *("cluster=/etc/x", "+exp=file:///tmp/x", "+exp=a/../../b", "task@x=../y", "optim='../x'"),
)
SEARCH = (
    *("hydra.searchpath=[/tmp/x]", "hydra.searchpath=[file:///tmp/x]", "hydra.searchpath=[pkg://antigravity]"),
    *("hydra.searchpath=[structured://antigravity]", "+hydra.searchpath=[x]", "++hydra.searchpath=[x]", " hydra.searchpath=[x]"),
)
FLAGS = (
    *(("--config-name", "../x"), ("--config-name=/tmp/x",), ("-cn", "a/../../x"), ("--config-path=structured://antigravity",)),
    *(("-cp", "pkg://antigravity"), ("--config-dir=pkg://antigravity",), ("-cd", "structured://antigravity")),
)


WORDS = [*((word,) for word in (*PATHS, *SEARCH)), *FLAGS]


@pytest.mark.parametrize(("words", "how"), [(words, HOWS[number % 3]) for number, words in enumerate(WORDS)], ids=" ".join)
def test_a_choice_is_a_name_and_a_directory_is_typed(
    words: tuple[str, ...], how: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    refused(command(*how[:1], *words, *how[1:]), 2)
    assert list(tmp_path.iterdir()) == []
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [/optim@optim: ../../../x]",
        "defaults: [../x]",
        "defaults: ['/model: ${where}']\nwhere: ../../x",
        "defaults: [/../x]",
        "defaults: [/model@data: ../../x]",
    ],
)
def test_a_file_reaches_no_other_outside(text: str, mine: Callable[..., Path], command: Command, tmp_path: Path) -> None:
    mine(text)
    (tmp_path / "x.yaml").write_text("# @package _global_\nname: reached\n")
    answer = command("--config-dir", "mine", "+exp=x", *SHOW)
    assert answer.code == 2, answer
    assert "reached" not in answer.out


REACHED = (
    *(("exp", "+exp={}"), ("exp", "+exp=[cifar,{}]"), ("local", "+local={}"), ("", "--config-name={}")),
    *(("", "hydra.searchpath=[{}/..]", "+exp=x"), ("", "--cfg=job", "--config-path=structured://planted")),
    ("", "--cfg=job", "--config-dir=pkg://planted"),
)  # fmt: skip


@pytest.mark.parametrize("words", REACHED, ids=" ".join)
def test_no_yaml_outside_is_reached(words: tuple[str, ...], launch: Launch, planted: dict[str, str], tmp_path: Path) -> None:
    """As a process, with a yaml that would run what it names."""
    (tmp_path / "x.yaml").write_text("# @package _global_\ntrust: [planted]\ncluster: {_target_: planted.Runs}\n")
    path = os.path.relpath(tmp_path / "x", CONF / words[0])
    refused_process(launch(*(word.format(path) for word in words[1:]), env=planted), 2)
    assert not (tmp_path / "canary").exists()


def test_the_first_file_sets_no_search_path(mine: Callable[..., Path], launch: Launch, planted: dict[str, str], tmp_path: Path) -> None:
    """Hydra looks at it, and imports what it names, before any file is composed."""
    mine("hydra: {searchpath: [pkg://planted]}\ndefaults: [schema]\n", "main.yaml")
    done = launch("--config-path", str(tmp_path / "mine"), "--config-name", "main", *SHOW, env=planted)
    refused_process(done, 2, "main: hydra.searchpath would take files from anywhere")
    assert not (tmp_path / "canary").exists()


# ---------------------------------------------------------------- 2: trust


def test_trust_counts_below_a_config_dir_and_not_from_the_checkout(
    mine: Callable[..., Path], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = mine("trust: [toyproject]\ncluster: {env_force: [A]}")
    assert "toyproject" in command("--config-dir", "mine", "+exp=x", *SHOW).out
    for flags in (("--config-path", str(where)), ("--config-path", str(where), "--config-dir", str(tmp_path))):
        mine("defaults: [schema, {exp: x}, {override hydra/job_logging: none}, {override hydra/hydra_logging: none}]", "main.yaml")
        refused(
            command(*flags, "--config-name", "main", *SHOW), 2, "exp/x: trust counts only in conf/local and in the files of a --config-dir"
        )


@pytest.mark.parametrize(
    "trust", ["${x}", "['${x}']", "['${oc.env:HOME}']", "os", "[[os]]", "{os: 1}", "[1]", "['']", "['a b']", "null", "['*']"]
)
def test_trust_is_plain_words(trust: str, mine: Callable[..., Path], command: Command) -> None:
    mine(f"trust: {trust}\nseed: 1\n")
    refused(command("plan", "--config-dir", "mine", "+exp=x"), 2, "exp/x: trust is a list of plain names")


@pytest.mark.parametrize(
    "name",
    [
        "os",
        "os.path",
        "subprocess",
        "sys",
        "builtins",
        "yaml",
        "hydra.utils",
        "torch",
        "numpy",
        "pytest",
        "launcher",
        "launcher.verbs.run",
        "zipapp",
    ],
)
def test_trust_names_code_of_ones_own(name: str, mine: Callable[..., Path], command: Command) -> None:
    mine(f"trust: [{name}]\n")
    refused(command("plan", "--config-dir", "mine", "+exp=x"), 2, f"trust: {name} is not a package of your own")


def test_a_checkout_that_is_installed_is_ones_own() -> None:
    check_trust(["toyproject", "toyproject.net", "nowhere", "tests"])
    with pytest.raises(ConfigError, match="pip install -e"):
        check_trust(["toyproject", "omegaconf"])
