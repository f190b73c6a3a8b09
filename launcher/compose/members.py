"""Hop 1 for a sweep: every member of a `--multirun`, composed at once.

Hydra's BasicSweeper composes each member anew, twice, at 40 ms each. What takes that long is the choice of files; setting values in
what they compose to does not. So files are composed once per choice of groups, and each member sets its values, by Hydra's own code,
in a copy.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import pickle
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from launcher import CONF
from launcher.compose import scripted
from launcher.compose.compose import flags_first, one_line, prepare
from launcher.compose.explain import version_base
from launcher.compose.once import ask_once
from launcher.compose.typed import restore, split
from launcher.config import dialect, tree
from launcher.errors import ConfigError

MOST = 100_000
"""Members of one sweep; more is a slip of the hand."""

_BASIC = ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "hydra._internal.core_plugins.basic_launcher.BasicLauncher")
_ASKS_HYDRA = re.compile(r"\$\{\s*hydra\s*:([^{}]*)\}")


@dataclass(frozen=True)
class Member:
    overrides: list[str]
    """All of this member's, in the order typed, as BasicSweeper would give them."""
    config: DictConfig
    """Composed; without Hydra's own node."""


class _Word(NamedTuple):
    override: Override
    chooses: bool
    """Which files there are, as Hydra tells that from setting a value in them."""
    asks: bool
    """`${hydra:…}`."""


class OtherSweeper(ConfigError):
    """A file chose a sweeper or launcher plug-in, which decides for itself what the members are and where they run."""


def compose_members(arguments: list[str]) -> list[Member]:
    """Every member of the sweep that `arguments`, flags among them, ask for; in BasicSweeper's order.

    Raises OtherSweeper where the members are not Hydra's own BasicSweeper's, ConfigError for what cannot be composed.
    """
    words = prepare(arguments)
    with one_line(words), dialect.as_typed(), initialize_config_dir(str(CONF), job_name="launcher", **version_base()):
        flags = get_args_parser().parse_args(flags_first(words))
        try:
            return _Composer(flags).members()
        except OSError as error:
            if isinstance(error, HydraException):  # a file that is not there is both
                raise
            raise ConfigError(f"{error.filename} cannot be read ({error.strerror}); correct it there") from error


def plugin_of(config: DictConfig) -> str | None:
    """Sweeper or launcher of a config that still has Hydra's node, where it is another than Hydra's own."""
    targets = [str(OmegaConf.select(config, f"hydra.{kind}._target_")) for kind in ("sweeper", "launcher")]
    return next((target for target in targets if target not in _BASIC), None)


class _Composer(ConfigLoaderImpl):
    """Hydra's own composition, cut in two: the groups, once per choice of them, and the values, once per member."""

    def __init__(self, flags: argparse.Namespace) -> None:
        given = [name for name in ("run", "cfg", "info", "hydra_help", "shell_completion") if getattr(flags, name)]
        if given:
            flag = f"--{given[0].replace('_', '-')}"
            raise ConfigError(f"{flag} is not for a sweep; leave out {flag} or --multirun")
        super().__init__(_search_path(flags))
        self._flags = [] if flags.config_dir is None else ["--config-dir", str(flags.config_dir)]
        name = str(flags.config_name or "config")
        self._master = self.load_configuration(name, [*flags.overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        with contextlib.suppress(OmegaConfBaseException):
            OmegaConf.select(self._master, "hydra.sweep.dir")  # as BasicSweeper: one time stamp for all who ask for that of the sweep
        _, self._repository = self._parse_overrides_and_create_caching_repo(name, _texts(self._master, "hydra.overrides.hydra"))
        self._parser = OverridesParser.create(config_loader=self)
        self._parsed: dict[str, _Word] = {}
        self._asked: dict[str, Any] = {}
        self._bases: dict[tuple[str, ...], tuple[bytes, bool]] = {}
        """By the words that choose files: what they compose to before any value is set, and whether it asks `${hydra:…}`.

        Pickled, in memory: a copy made from that takes 0.2 ms, copy.deepcopy 1.3 ms, and 2 ms with 200 copies around (n=200).
        """

    def members(self) -> list[Member]:
        plugin = plugin_of(self._master)
        if plugin is not None:
            raise OtherSweeper(f"hydra: {plugin} decides for itself what the members are and where they run; leave it out")
        choices = self._choices()
        swept = [len(words) > 1 for words in choices]
        found: list[Member] = []
        for words in itertools.product(*choices):
            with self._named([word for word, is_swept in zip(words, swept, strict=True) if is_swept], list(words)):
                found.append(Member(list(words), self._compose(len(found), list(words))))
        return found

    def _choices(self) -> list[list[str]]:
        """For each key, in the order first typed, every `key=value` it takes: BasicSweeper.split_arguments with a limit."""
        params: DictConfig = OmegaConf.select(self._master, "hydra.sweeper.params") or OmegaConf.create({})
        typed: Any = OmegaConf.to_container(params)  # an override is written down, what `${oc.env:SECRET}` stands for is not
        given = [f"{key}={text if 'oc.env' in text else params[key]}" for key, text in typed.items()]
        given += _texts(self._master, "hydra.overrides.task")
        found: dict[str, list[str]] = {}
        for override in self._parser.parse_overrides(given):
            key = override.get_key_element()
            if not override.is_sweep_override():
                found[key] = [f"{key}={_typed(override)}"]
                continue
            if override.is_interval_sweep():
                raise ConfigError(f"{override.input_line}: an interval has no end of values; type {key}=0.1,0.2 or {key}=range(1,5)")
            _refuse_a_list(override)
            found[key] = [f"{key}={value}" for value in itertools.islice(_values(override), MOST + 1)]
            if not found[key]:
                raise ConfigError(f"{override.input_line}: no value comes of this; type one, such as {key}=…")
        if math.prod(map(len, found.values())) > MOST:
            raise ConfigError(f"this sweep has more than {MOST:,} members; sweep over fewer values")
        return list(found.values())

    @contextlib.contextmanager
    def _named(self, swept: list[str], words: list[str]) -> Generator[None]:
        """An error of a member says of which, unless its own words do."""
        try:
            with one_line([*self._flags, *words]):
                yield
        except ConfigError as error:
            named = " ".join(swept)
            raise ConfigError(str(error) if str(error).startswith(named) else f"{named}: {error}") from error

    def _compose(self, number: int, words: list[str]) -> DictConfig:
        parsed = [self._parse(word) for word in words]
        groups = tuple(word for word, known in zip(words, parsed, strict=True) if known.chooses)
        if groups not in self._bases:
            base = _without_hydra(self.load_sweep_config(self._master, list(groups)))
            self._bases[groups] = pickle.dumps(base), bool(_asking(base))
        pickled, asks = self._bases[groups]
        if asks or any(known.asks for known in parsed):
            config = self._answered(number, words)
        else:
            config = pickle.loads(pickled)
            self._apply_overrides_to_config([known.override for known in parsed if not known.chooses], config)
        restore(config, words)
        ask_once(config, self._asked)
        scripted.settle(config, words)
        if OmegaConf.to_container(OmegaConf.masked_copy(config, ["id"])).get("id"):  # pyright: ignore
            config.id = f"{config.id}-{number}"  # members of a sweep are runs of their own
        return config

    def _parse(self, word: str) -> _Word:
        """Once per word: it takes 0.3 ms."""
        if word not in self._parsed:
            (override,) = self._parser.parse_overrides([word])
            self.validate_sweep_overrides_legal([override], RunMode.RUN, from_shell=True)
            value = override.value()
            chooses = not isinstance(value, dict) and self._repository.group_exists(override.key_or_group)
            self._parsed[word] = _Word(override, chooses, _ASKS_HYDRA.search(str(value)) is not None)
        return self._parsed[word]

    def _answered(self, number: int, words: list[str]) -> DictConfig:
        """A member whose config asks `${hydra:job.num}`, composed anew: the answers go with Hydra's node, so they are written in."""
        full = self.load_sweep_config(self._master, words)
        with open_dict(full):
            full.hydra.job.num, full.hydra.job.id = number, str(number)
        known = OmegaConf.to_container(full.hydra)
        config = _without_hydra(full)

        def answer(question: re.Match[str]) -> Any:
            value = tree.look_up(known, question[1].strip())
            if value is None or value is tree.ABSENT or any(sign in str(value) for sign in ("???", "${")):
                raise ConfigError(f"{question[0]} is not known before the run starts; leave it out")
            return value

        for path, text in _asking(config):
            whole = _ASKS_HYDRA.fullmatch(text)
            value = answer(whole) if whole else _ASKS_HYDRA.sub(lambda question: str(answer(question)), text)
            OmegaConf.update(config, path, value, merge=False)
        return config


def _typed(override: Override) -> str:
    """The value; a number as it was typed, for what it was typed for may be a text: `id=1e5`."""
    text = str(override.input_line).partition("=")[2]
    plain = isinstance(override.value(), str) or "=" not in str(override.input_line)
    return override.get_value_element_as_str() if plain else text


def _values(override: Override) -> Iterator[str]:
    found = override.sweep_string_iterator()
    if override.value_type != ValueType.SIMPLE_CHOICE_SWEEP:
        return found
    given: Any = override.value()
    words = split(str(override.input_line).partition("=")[2])
    if len(words) != len(given.list):
        return found
    return (text if isinstance(was, str | QuotedString) else word for text, was, word in zip(found, given.list, words, strict=True))


_LISTS = re.compile(r"\+*cluster\.(exclude|partition|constraint|(sbatch|srun|env)\..*)")
"""Texts in which a comma is the list of one run more often than a run each."""


def _refuse_a_list(override: Override) -> None:
    if override.value_type == ValueType.SIMPLE_CHOICE_SWEEP and _LISTS.fullmatch(override.get_key_element()):
        key, text = override.get_key_element(), str(override.input_line).partition("=")[2]
        raise ConfigError(
            f"{key}={text}: one list, or a run each? type '{key}=\"{text}\"' for one list, '{key}=choice({text})' for a run each"
        )


def _search_path(flags: argparse.Namespace) -> ConfigSearchPath:
    """Where hydra.main, called from launcher/compose/compose.py, would look."""
    path = create_automatic_config_search_path(None, "launcher.compose.compose", flags.config_path or str(CONF))
    if flags.config_dir is not None:
        folder = Path(flags.config_dir).absolute()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such directory; give one that exists")
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return path


def _without_hydra(config: DictConfig) -> DictConfig:
    with open_dict(config):
        del config["hydra"]
    return config


def _texts(config: DictConfig, key: str) -> list[str]:
    """As typed: the words of `${oc.env:SECRET}`, not what it stands for."""
    words: Any = OmegaConf.to_container(OmegaConf.select(config, key))
    return words


def _asking(config: DictConfig) -> list[tuple[str, str]]:
    """(path, text) of what asks `${hydra:…}`."""
    leaves = tree.leaves(OmegaConf.to_container(config))
    return [(path, value) for path, value in leaves if isinstance(value, str) and _ASKS_HYDRA.search(value)]
