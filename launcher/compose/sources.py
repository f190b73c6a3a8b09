"""What a config file may say, by where it lies (docs/decisions/0070-what-a-config-file-may-say.md).

Hydra builds what its own node names: callbacks, logging handlers, sweepers. And a group choice is a path to it, so that an override reaches
any yaml on the machine. So each file is judged when it is read, before it is merged and before Hydra acts on anything.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import DictConfig, OmegaConf

from launcher import CONF
from launcher.config import tree
from launcher.errors import ConfigError

_loader: Any = ConfigLoaderImpl

_OURS = ("structured://", "pkg://hydra.conf")
"""Hydra's own files, those of a plug-in that is installed, our schema."""
_CHOICES = {"job_logging": "none", "hydra_logging": "none", "launcher": "basic"}
"""What is chosen of Hydra's own groups; of the others, `default`."""
_PLAIN = re.compile(
    r"sweeper\.(n_trials|n_jobs|direction(\[\d+\])?|study_name|max_batch_size|max_trials|max_failure_rate|sampler\.(?!_)\w+"
    r"|optim\.(budget|num_workers|seed|maximize)|seed|budget)"
)
"""Parameters of a sweeper that are numbers or one word."""
_WORD = re.compile(r"[\w.-]*")
_NO_NAME = re.compile(r"(^|/)\.\.(/|$)|^/|//")


@contextlib.contextmanager
def judged(arguments: Sequence[str], check: Callable[[Sequence[str]], None]) -> Generator[None]:
    """While it lasts, every file that Hydra composes is judged. `check` refuses words of a command line; a file may hold such words too.

    Raises ConfigError that names the file, the key and where it may be said.
    """
    named = [Path(place).absolute().resolve() for place in config_dirs(arguments)]
    primary: list[str | None] = [None]
    load, search = _loader._load_single_config, _loader._process_config_searchpath

    def load_single(self: Any, default: Any, repo: Any) -> Any:
        _check_name(str(default.config_path))
        found = load(self, default=default, repo=repo)
        if primary[0] is not None or not str(found.path).startswith(_OURS):  # `--hydra-help` composes Hydra's own files, and no other
            _judge(str(default.config_path), str(found.path), found.config, named, check)
        return found

    def search_path(self: Any, config_name: str | None, parsed_overrides: Any, repo: Any) -> None:
        _check_name(config_name or "")
        primary[0] = config_name
        named_first = repo.load_config(config_path=config_name) if config_name else None
        if (
            isinstance(node := named_first and named_first.config, DictConfig)
            and tree.look_up(_plain(node), "hydra.searchpath") is not tree.ABSENT
        ):
            raise ConfigError(f"{config_name}: hydra.searchpath would take files from anywhere; type --config-dir DIR")
        search(self, config_name, parsed_overrides, repo)

    _loader._load_single_config, _loader._process_config_searchpath = load_single, search_path
    try:
        yield
    finally:
        _loader._load_single_config, _loader._process_config_searchpath = load, search


def config_dirs(arguments: Sequence[str]) -> list[str]:
    """The directories that `--config-dir` names."""
    apart = [after for flag, after in itertools.pairwise(arguments) if flag in ("--config-dir", "-cd")]
    return apart + [word.partition("=")[2] for word in arguments if word.startswith(("--config-dir=", "-cd="))]


def is_path(choice: str) -> bool:
    """Whether one of the choices in `a`, `[a,b]`, `a,b` or `choice(a,b)` is none by name."""
    return any(_NO_NAME.search(each) for each in re.split(r"[\[\](),'\"\s]+", choice))


def _check_name(name: str) -> None:
    if _NO_NAME.search(name):
        raise ConfigError(f"{name}: a choice is the name of a file below conf/ or --config-dir, and no path; put the file there")


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config) if OmegaConf.is_config(config) else None


def _judge(name: str, place: str, config: Any, named: Sequence[Path], check: Callable[[Sequence[str]], None]) -> None:
    ours = place.startswith(_OURS)
    if name.startswith("hydra/"):
        _judge_choice(name, ours)
    if ours:
        return
    here = Path(place.removeprefix("file://")).resolve()
    keys: set[Any] = {*config.keys()} if isinstance(config, DictConfig) else set()
    if "hydra" in keys and not (here == CONF and name == "config"):
        _judge_hydra(name, _plain(config)["hydra"], check)
    powers = {"trust"} & keys or ("cluster" in keys and tree.look_up(_plain(config), "cluster.env_force") not in (tree.ABSENT, []))
    if powers:
        key = "trust" if "trust" in keys else "cluster.env_force"
        if here not in named and not (here == CONF and name.startswith("local/")):
            raise ConfigError(
                f"{name}: {key} counts only in conf/local and in the files of a --config-dir; put it into conf/local/machine.yaml"
            )
        _check_literal(name, key, tree.look_up(_plain(config), key))


def _judge_choice(name: str, ours: bool) -> None:
    group, _, choice = name.removeprefix("hydra/").rpartition("/")
    wanted = _CHOICES.get(group, "default")
    free = not group or group.split("/")[0] == "sweeper"
    if not ours or (choice != wanted and not free):
        advice = "leave it out" if ours or free else f"type `override hydra/{group}: {wanted}`"
        raise ConfigError(
            f"{name}: of Hydra's own config only an installed sweeper can be chosen, for the rest names code to run; {advice}"
        )


def _judge_hydra(name: str, node: Any, check: Callable[[Sequence[str]], None]) -> None:
    """Raises ConfigError but for what conf/config.yaml says too, and a sweeper's plain parameters."""
    if not tree.is_mapping(node) or any("." in str(key) for key in node):
        raise ConfigError(f"{name}: hydra: Hydra's own config names code to run; leave it out")
    shipped = dict(tree.leaves(yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["hydra"]))
    params: Any = tree.look_up(node, "sweeper.params")
    for key, value in tree.walk(node):
        if re.match(r"sweeper\.params(\W|$)", key):
            continue
        if isinstance(value, list) or (tree.is_mapping(value) and not any("." in str(inner) for inner in value)):
            continue  # what is in it is judged by itself
        if key in shipped and value == shipped[key]:
            continue
        if _PLAIN.fullmatch(key) and (value is None or isinstance(value, bool | int | float) or _is_word(key, value)):
            continue
        raise ConfigError(f"{name}: hydra.{key}: Hydra's own config names code to run and files to write; leave it out")
    if params is not tree.ABSENT and params is not None:
        if not tree.is_mapping(params):
            raise ConfigError(f"{name}: hydra.sweeper.params is no text with keys and values; correct it there")
        check([f"{key}={value}" for key, value in params.items()])


def _is_word(key: str, value: Any) -> bool:
    return isinstance(value, str) and key.startswith(("sweeper.direction", "sweeper.study_name")) and bool(_WORD.fullmatch(value))


def _check_literal(name: str, key: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) and re.fullmatch(r"[A-Za-z_][\w.]*", item) for item in value):  # pyright: ignore
        raise ConfigError(f"{name}: {key} is a list of plain names; type {key}: [my_package]")
