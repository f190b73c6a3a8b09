"""Hop 1: Hydra composes conf/ and the overrides; its errors become one line."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any

import hydra
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from launcher import CONF
from launcher.compose import preflight, scripted, sources, typed
from launcher.compose.explain import SEVERAL, explain, version_base
from launcher.compose.once import ask_once
from launcher.config import dialect, home
from launcher.config.config import GROUPS, Config
from launcher.config.references import listen
from launcher.config.targets import nearest
from launcher.errors import ConfigError, RunError
from launcher.trust.secret import mask

Job = Callable[[DictConfig, list[str]], Any]
"""Called once per composed config with the overrides that made it. What it returns is for a sweeper that asks."""

_FLAGS = (
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package", "-p", "--run", "-r"),
    *("--multirun", "-m", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--info", "-i"),
)
"""Hydra's own flags that we pass on. Not --experimental-rerun: it loads a pickle."""

_ARGUMENTS = {
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath", "")),
    **dict.fromkeys(("--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"), ()),
}
"""What those flags take: one of these words, or any."""


def compose(arguments: list[str], job: Job) -> None:
    """Run `job` on what `arguments` compose to, once, or once per member of a `--multirun`.

    Raises ConfigError for what cannot be composed, and afterwards the first exception of a job.
    """
    arguments = prepare(arguments)
    failures: list[Exception] = []
    try:
        with one_line(arguments):
            if any(word.startswith("-") for word in arguments):
                _through_hydra_main(flags_first(arguments), _job(job, failures, arguments))
            else:
                _once(arguments, job, failures)
    except OSError as error:  # the directory that Hydra makes for a sweep
        if error.filename is None:  # of the working directory, which is gone
            raise
        raise RunError(f"runs_dir: {error.filename} cannot be made ({error.strerror}); choose another with runs_dir=…") from error
    if failures:
        raise failures[0]


def prepare(arguments: list[str]) -> list[str]:
    """The arguments as Hydra shall see them: `exp=` is `+exp=`, the schema is known. Raises ConfigError for what it must not see."""
    preflight.install()
    preflight.check_words(arguments)
    arguments = [f"+{word}" if word.startswith("exp=") else scripted.in_word(word) for word in arguments]
    arguments = [home.in_word(before, word) for before, word in zip(["", *arguments], arguments, strict=False)]
    _check_arguments(arguments)
    ConfigStore.instance().store(name="schema", node=Config)
    listen()
    return arguments


@contextlib.contextmanager
def one_line(arguments: list[str]) -> Generator[None]:
    """What Hydra raises while it composes `arguments`, as a ConfigError; and every file is judged that it reads."""
    try:
        with sources.judged(arguments, _check_arguments):
            yield
    except (HydraException, OmegaConfBaseException) as error:
        text = explain(error, arguments)
        if mask.is_quoted_in(text):
            named = " ".join(word for word in arguments if "oc.env" in word) or "config"
            raise ConfigError(f"{named}: what the environment names there is no choice and no key; type the one that is meant") from None
        raise ConfigError(text) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config: {error}; correct it there") from error
    except ValueError as error:  # `model=null`, a yaml that is a list, or no text: Hydra has no type of its own for it
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(_unreadable(arguments, error)) from error
        raise ConfigError(_no_choice(arguments) or f"config: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ConfigError(_unreadable(arguments, error)) from error  # a yaml that is a number
    except RecursionError as error:
        raise ConfigError(f"{_likely(arguments)}: a yaml there holds itself, or too many levels; correct that file") from error
    except (TypeError, AttributeError, LookupError, AssertionError) as error:  # a kind of value for which Hydra has no word, as `model=[1]`
        unknown = f"{_likely(arguments)}: a value there is of a kind that belongs nowhere; type key=value, and a name for a group"
        raise ConfigError(_no_choice(arguments) or unknown) from error


def _unreadable(arguments: list[str], error: Exception) -> str:
    """Neither Hydra nor OmegaConf says which file it was; the choices that were typed are the likely ones."""
    return f"{_likely(arguments)}: a yaml there is no text with keys and values ({error}); correct that file"


def _no_choice(arguments: list[str]) -> str:
    """What to say of a word that gives a group something else than names; empty where there is none."""
    for word in arguments:
        match = re.match(rf"\+?({'|'.join(GROUPS)})=(.*)$", word, re.DOTALL)
        if match and any(re.fullmatch(r"null|true|false|[\d.-].*", each) for each in re.split(r"[\[\],\s]+", match[2])):
            names = sorted(path.stem for path in (CONF / match[1]).glob("*.yaml"))
            return f"{word}: a choice is the name of a yaml; type {match[1]}= and one of {', '.join(names)}"
    return ""


def _likely(arguments: list[str]) -> str:
    return " ".join(word for word in arguments if re.match(rf"\+?({'|'.join(GROUPS)})=", word)) or "config"


def _once(arguments: list[str], job: Job, failures: list[Exception]) -> None:
    """One composition, no flags: what `hydra.main` does, but for composing a second time to learn its own mode (70 ms)."""
    with initialize_config_dir(str(CONF), job_name="launcher", **version_base()), dialect.as_typed():
        config = _composed(arguments)
    HydraConfig.instance().set_config(config)
    overrides = _typed_for_us()
    with open_dict(config):
        del config["hydra"]
    typed.restore(config, overrides)
    ask_once(config)
    scripted.settle(config, overrides)
    try:
        job(config, overrides)
    except Exception as error:  # the job's own, which is not ours to translate
        failures.append(error)


def _typed_for_us() -> list[str]:
    """Without what was for Hydra."""
    overrides: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)
    return overrides


def _composed(overrides: list[str]) -> DictConfig:
    """A comma in a text, such as `cluster.exclude=node1,node2`, means no two runs where one was asked for."""
    try:
        return hydra_compose("config", overrides=overrides, return_hydra_config=True)
    except HydraException as error:
        quoted = [typed.quoted(word) for word in overrides]
        if quoted == overrides or not re.search(SEVERAL, str(error)):
            raise
        try:
            config = hydra_compose("config", overrides=quoted, return_hydra_config=True)
        except HydraException:
            raise error from None
        changed = [word.lstrip("+").partition("=")[0] for word, after in zip(overrides, quoted, strict=True) if word != after]
        if not all(typed.takes_text(typed.annotation(config, key) or "") for key in changed):
            raise
        return config


def _through_hydra_main(arguments: list[str], call: Callable[[DictConfig], Any]) -> None:
    """Hydra's own flags, multirun among them."""
    main = hydra.main(config_path=str(CONF), config_name="config", **version_base())(call)
    saved, sys.argv = sys.argv, ["launcher", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise, do not print and exit
    try:
        with dialect.as_typed():
            main()
    finally:
        sys.argv = saved
        os.environ.pop("HYDRA_FULL_ERROR", None)


def _job(job: Job, failures: list[Exception], arguments: list[str]) -> Callable[[DictConfig], Any]:
    """`job` for Hydra, which prints its own lines around whatever a job raises, and of which we translate the errors: the job's own
    are kept out of both."""

    def call(config: DictConfig) -> Any:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        settings = HydraConfig.get()
        plain: Any = OmegaConf.to_container(config)  # as typed: what `${oc.env:SECRET}` stands for is nobody's business here
        try:
            overrides = typed.as_typed(_typed_for_us(), arguments) if settings.mode == RunMode.MULTIRUN else _typed_for_us()
            typed.restore(config, overrides)
            ask_once(config)
            scripted.settle(config, overrides)
            if settings.mode == RunMode.MULTIRUN and plain.get("id"):
                config.id = f"{config.id}-{settings.job.num}"  # members of a sweep are runs of their own
            return job(config, overrides)
        except Exception as error:
            failures.append(error)
            return math.nan  # a trial that failed, to a sweeper that asks

    return call


def _check_arguments(arguments: Sequence[str]) -> None:
    """Of a command line, or of a sweeper's parameters in a file."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=False):
        flag, equals, value = argument.partition("=")
        key = re.sub(r"^[+~\s]+|\s", "", flag)
        if argument.startswith("-"):
            _check_flag(flag, value if equals else after)
        elif not key:
            raise ConfigError(f"{argument!r} names no key; type key=value")
        if re.match(r"trust(\W|$)", key):
            raise ConfigError("trust: only a file may say which code is trusted; put it into conf/local/machine.yaml")
        if argument == "--resolve" and not {"--cfg", "-c"} & set(arguments):
            raise ConfigError("--resolve goes with --cfg; type --cfg job --resolve")
        if key == "hydra.searchpath":
            raise ConfigError("hydra.searchpath would take files from anywhere; type --config-dir DIR")
        if re.match(r"hydra\b|[^=]*@.*\bhydra\b", key) and flag != "hydra.sweep.dir":
            raise ConfigError(f"{flag}: Hydra's own config names code to run and is not for the command line; leave it out")
        if "pkg://" in argument:
            raise ConfigError(f"{argument}: pkg:// would import that package; give a directory")
        if _GROUP.match(key) and not value.startswith("{") and sources.is_path(value):
            raise ConfigError(f"{argument}: a choice is the name of a file below conf/ or --config-dir, and no path; put the file there")


_GROUP = re.compile(rf"({'|'.join(GROUPS)}|local|[\w.]+/.*)(@|$)")


def flags_first(arguments: list[str]) -> list[str]:
    """Flags may stand anywhere; Hydra's parser refuses overrides on both sides of one."""
    flags: list[str] = []
    overrides: list[str] = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        taken = before in _ARGUMENTS and word in (_ARGUMENTS[before] or (word,))
        (flags if taken or word.startswith("-") else overrides).append(word)
    return flags + overrides


def _check_flag(flag: str, value: str) -> None:
    if flag not in _FLAGS:
        raise ConfigError(f"{flag}: no such option{nearest(flag, _FLAGS)}")
    choices = _ARGUMENTS.get(flag)
    value = "" if value.startswith("-") else value
    if choices is not None and value not in (choices or {value} - {""}):
        wanted = f"one of {', '.join(filter(None, choices))}" if choices else "a value"
        raise ConfigError(f"{flag} needs {wanted}; for example: {flag} {choices[0] if choices else 'conf'}")
    if "://" in value:
        raise ConfigError(f"{flag} {value}: that would import a package; give a directory")
