"""`script=train.py`: a run whose processes are a program of the user's own. Its config has no model, data or training of ours."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from launcher.config import tree
from launcher.config.config import GROUPS, ScriptConfig
from launcher.config.targets import nearest
from launcher.errors import ConfigError

SIGNALS = ("TERM", "INT", "USR1", "USR2", "HUP")
_NOT_OURS = (*(group for group in GROUPS if group not in ("cluster", "exp")), "train", "seed")
"""Keys that say what the trainer does."""
_KEYS = tuple(field.name for field in dataclasses.fields(ScriptConfig))


def in_word(word: str) -> str:
    """`script=FILE` is short for `script.file=FILE`."""
    key, equals, value = word.partition("=")
    if key not in ("script", "+script", "++script") or not equals or value.startswith("{"):
        return word
    if Path(value).exists():  # whatever signs are in its name, it is no sweep and no call
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"script.file={value}"


def settle(config: DictConfig, overrides: Sequence[str]) -> None:
    """Leave in a composed config what its kind of run has: of a script none of the trainer's keys, else no `script`. Raises ConfigError."""
    script = _node(config)
    typed = [match[1] for word in overrides if (match := re.match(r"[+~]*([\w/]+)", word))]
    with open_dict(config):
        if script.get("file") is None:
            if "script" in typed:
                raise ConfigError("script.…: nothing says which script; type script=train.py")
            del config["script"]
            return
        if strange := [key for key in typed if key in _NOT_OURS]:
            raise ConfigError(
                f"{strange[0]}: it is the trainer's, and script={script['file']} brings its own; leave it out, or pass it on: "
                f"'script.args=[--{strange[0]},…]'"
            )
        for key in _NOT_OURS:
            del config[key]
        if config.name == "run":
            config.name = _name_of(str(script["file"]))


def _node(config: DictConfig, *, resolve: bool = False) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config, resolve=resolve)
    return plain["script"] or {}


def _name_of(file: str) -> str:
    """A name for the run out of the program's."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file).name.removesuffix(".py")).strip("-._")
    return stem[:64] or "script"


def refuse(values: Mapping[str, Any] | DictConfig, verb: str) -> None:
    """Raises ConfigError where a verb needs what the trainer alone has, and the run is a script's."""
    if is_one(values):
        raise ConfigError(f"{verb}: script={values['script']['file']} has a model, data and steps of its own; name a run of the trainer")


def is_one(values: Mapping[str, Any] | DictConfig) -> bool:
    return "script" in values


def check(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for a script that cannot be started, or options of it that cannot be meant."""
    script = values["script"]
    if strange := [key for key in script if key not in _KEYS]:
        raise ConfigError(f"script.{strange[0]}: no such key{nearest(strange[0], _KEYS, 'script.')}")
    for key in ("args", "resume_args"):
        _check_words(key, script[key])
    if script["stop_signal"] not in SIGNALS:
        raise ConfigError(f"script.stop_signal={tree.shown(script['stop_signal'])} cannot be; type one of {', '.join(SIGNALS)}")
    if not isinstance(script["module"], bool):
        raise ConfigError(f"script.module={tree.shown(script['module'])} cannot be; type true or false")
    _check_progress(script["progress"])
    if script["module"]:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", str(script["file"])):
            raise ConfigError(f"script={script['file']}: that is no name of a module; type script=package.train, or script.module=false")
        return
    path = Path(script["file"])
    if not path.is_file():
        known = "a directory; name the file in it" if path.is_dir() else "not there; type the path of a file"
        raise ConfigError(f"script={script['file']}: {path} is {known}, or script.module=true for a module")
    if path.suffix != ".py" and not os.access(path, os.X_OK):
        raise ConfigError(f"script={script['file']}: it ends in no .py and may not be executed; type: chmod +x {path}")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"script={script['file']}: {path} may not be read; type: chmod u+r {path}")


def _check_words(key: str, words: Any) -> None:
    if not isinstance(words, list):
        raise ConfigError(f"script.{key}={tree.shown(words)} cannot be; type a list of words: 'script.{key}=[--lr,0.1]'")
    for word in cast("list[Any]", words):
        if not isinstance(word, str | int | float) or "\0" in str(word):
            raise ConfigError(f"script.{key}: {tree.shown(word)} is no word; put it in quotes within the list if it is a text")


def _check_progress(pattern: Any) -> None:
    if pattern is None:
        return
    try:
        found = re.compile(pattern) if isinstance(pattern, str) else None
    except re.error as error:
        raise ConfigError(f"script.progress={pattern}: {error}; type a regular expression with (?P<step>[0-9]+) in it") from error
    if found is None or "step" not in found.groupindex:
        raise ConfigError(f"script.progress={tree.shown(pattern)}: it has no group named step; type one with (?P<step>[0-9]+) in it")


def whole(config: DictConfig) -> None:
    """Make the path of the script a whole one, for every later attempt finds it from another directory."""
    script = _node(config, resolve=True)
    if not script["module"]:
        with open_dict(config):
            config.script.file = str(Path(script["file"]).expanduser().absolute())


def root(values: Mapping[str, Any]) -> Path:
    """The directory whose code a batch job copies: of a file the one it lies in, of a module the one that the command was typed in."""
    return Path.cwd() if values["script"]["module"] else Path(values["script"]["file"]).parent
