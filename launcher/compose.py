"""Hop 1: Hydra composes conf/ and the overrides; its errors become one line."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launcher import tree
from launcher.config import GROUPS, Config
from launcher.errors import ConfigError, RunError
from launcher.freeze import PROJECT
from launcher.targets import nearest

CONF = PROJECT / "conf"
Job = Callable[[DictConfig, list[str]], None]
"""Called once per composed config with the overrides that made it."""

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
    """Run `job` on what `arguments` compose to, once, or once per member of a `--multirun`. Raises ConfigError."""
    arguments = [f"+{word}" if word.startswith("exp=") else word for word in arguments]
    _check_arguments(arguments)
    ConfigStore.instance().store(name="schema", node=Config)
    main = hydra.main(config_path=str(CONF), config_name="config", **_version_base())(_job(job))
    saved, sys.argv = sys.argv, ["launcher", *_flags_first(arguments)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise, do not print and exit
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, arguments)) from error
    except OSError as error:  # the directory that Hydra makes for a sweep
        raise RunError(f"runs_dir: {error.filename} cannot be made ({error.strerror}); choose another with runs_dir=…") from error
    except ValueError as error:  # `model=null`, `model=5`: Hydra's own check of it has no other type; a job's never comes this way
        choices = [word for word in arguments if re.match(rf"\+?({'|'.join(GROUPS)})=(null|true|false|[\d.-].*)$", word)]
        raise ConfigError(f"{' '.join(choices)}: {error}; type a choice, such as model=resnet8") from error
    finally:
        sys.argv = saved
        os.environ.pop("HYDRA_FULL_ERROR", None)


def _job(job: Job) -> Callable[[DictConfig], None]:
    def call(config: DictConfig) -> None:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        settings = HydraConfig.get()
        plain: Any = OmegaConf.to_container(config)  # as typed: what `${oc.env:SECRET}` stands for is nobody's business here
        overrides: Any = OmegaConf.to_container(settings.overrides.task)
        if settings.mode == RunMode.MULTIRUN and plain["id"]:
            config.id = f"{plain['id']}-{settings.job.num}"  # members of a sweep are runs of their own
        job(config, overrides)

    return call


def _check_arguments(arguments: list[str]) -> None:
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, value = argument.partition("=")
        if argument.startswith("-"):
            _check_flag(flag, value if equals else after)
        elif not flag.strip("+~ "):
            raise ConfigError(f"{argument!r} names no key; type key=value")
        if re.match(r"[+~]*trust(\W|$)", argument):
            raise ConfigError("trust: only a file may say which code is trusted; put it into conf/local/machine.yaml")
        if argument == "--resolve" and not {"--cfg", "-c"} & set(arguments):
            raise ConfigError("--resolve goes with --cfg; type --cfg job --resolve")
        if re.match(r"[+~]*hydra\b|[^=]*@[^=]*\bhydra\b", argument) and flag not in ("hydra.searchpath", "hydra.sweep.dir"):
            raise ConfigError(f"{flag}: Hydra's own config names code to run and is not for the command line; leave it out")
        if "pkg://" in argument:
            raise ConfigError(f"{argument}: pkg:// would import that package; give a directory")


def _flags_first(arguments: list[str]) -> list[str]:
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


def _explain(error: Exception, arguments: list[str]) -> str:
    """Hydra's several lines as one that names the key and the nearest that exists."""
    text = f"{error}\n{error.__cause__ or ''}"
    missing = re.search(r"Could not (?:override|append|delete|find)[^']*'([^']+)'", text)
    unknown = re.search(r"Key '([^']+)' (?:is )?not in", text)
    if missing and "Available options in" in text:
        group, _, choice = missing.group(1).rpartition("/")
        choices = re.findall(r"^\t(\S+)$", text.split("Available options in", 1)[1], flags=re.M)
        return f"{group}={choice}: no such choice{nearest(choice, choices)}"
    if missing or unknown:
        key = missing.group(1) if missing else unknown.group(1) if unknown else ""
        full = re.search(r"full_key: (\S+)", text)
        key = full.group(1) if full and "." in full.group(1) else key
        return f"{key}: no such key{_suggest(key, known_keys(arguments))}"
    several = re.search(r"(?:Ambiguous value for argument|Sweep parameters) '([^']+)'", text)
    if several:
        return f"{several.group(1)}: several values for one run; add -m to train each, or type key=[a,b] for a list"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: this cannot be read; type key=value, and quote what has spaces or signs in it: \"key='a b'\""
    merging = re.search(r"Error merging override (\S+)", text)
    if merging:
        return f"{merging.group(1)}: {text.splitlines()[1]}"
    return f"{getattr(error, 'override', None) or 'config'}: {text.strip().splitlines()[0]}"


def _suggest(key: str, known: list[str]) -> str:
    """The same word elsewhere (`lr`: optim.lr), or else what is nearest among the keys beside it."""
    parent, dot, word = key.rpartition(".")
    elsewhere = [name for name in known if name.rpartition(".")[2] == word]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    beside = {name.removeprefix(parent + dot) for name in known if name.rpartition(".")[0] == parent and "[" not in name} - {"_target_"}
    return nearest(word, sorted(beside), prefix=parent + dot)


def known_keys(arguments: list[str]) -> list[str]:
    """Every key of the config that the group choices among `arguments` compose, for suggestions."""
    from hydra import compose as compose_config
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    choices = [word for word in arguments if re.match(rf"\+?({'|'.join(GROUPS)})=[\w-]+$", word)]
    extra = [after for flag, after in itertools.pairwise(arguments) if flag in ("--config-dir", "-cd")]
    search = [f"hydra.searchpath=[{','.join(f'file://{Path(path).resolve()}' for path in extra)}]"] if extra else []
    for overrides in ([*choices, *search], []):
        try:
            with initialize_config_dir(str(CONF), **_version_base()):
                config = compose_config("config", overrides=overrides)
        except (HydraException, OmegaConfBaseException):
            continue
        return [*GROUPS, *(path for path, _ in tree.walk(OmegaConf.to_container(config)))]
    return list(GROUPS)


def _version_base() -> dict[str, str]:
    """1.3 warns where version_base is left out (and changes directory as 1.1 did), 1.4 warns where it is given."""
    return {"version_base": "1.3"} if hydra.__version__ < "1.4" else {}
