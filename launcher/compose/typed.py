"""Words for text fields are the words that were typed: `id=52e4381` is a commit, not infinity.

Hydra's grammar and yaml both make numbers of what looks like one. Which fields are texts is said by their annotations: of the schema
(`Text`), and of the constructor that a group's `_target_` names (`str`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, cast

from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser.overrides_visitor import HydraOverrideVisitor
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, ValueNode, open_dict

from launcher.config import targets, tree
from launcher.config.config import Config, ScriptConfig
from launcher.errors import ConfigError

_parser: Any = overrides_parser

_OVERRIDE = re.compile(r"(\+{0,2})([\w.-]+)=(.*)", re.DOTALL)
_CHANGES = re.compile(r"\d|true|false|null|inf|nan|[{\[]", re.IGNORECASE)
"""What a word must hold for Hydra to make something else of it than a text."""


def restore(config: DictConfig, words: list[str]) -> None:
    """Put the words that were typed into the text fields of `config`. Raises ConfigError where a yaml has a number in one."""
    typed: dict[str, Any] = {}
    last = {match[2]: word for word in words if (match := _OVERRIDE.fullmatch(word))}
    for key, word in last.items():
        if _CHANGES.search(word.partition("=")[2]) and (found := annotation(config, key)) and _has_token(raw := _raw(word)):
            _put(config, key, raw, found, typed)
    for key, found in _text_fields(config):
        if key not in typed:
            _check_file(config, key, found)


def as_typed(words: list[str], arguments: list[str]) -> list[str]:
    """Words that a sweeper made of `arguments`, each value spelt as it was there: of `name=1e5,2` Hydra's own makes name=100000.0."""
    spelt: dict[tuple[str, str], str] = {}
    for argument in arguments:
        match = _OVERRIDE.fullmatch(argument)
        if match and _CHANGES.search(match[3]):
            for token in _tokens(argument):
                spelt.setdefault((match[2], _same(token.value)), str(token))
    return [_spelt(word, spelt) for word in words] if spelt else words


def _spelt(word: str, spelt: dict[tuple[str, str], str]) -> str:
    match = _OVERRIDE.fullmatch(word)
    found = _tokens(word) if match else []
    text = spelt.get((match[2], _same(found[0].value))) if match and len(found) == 1 else None
    return f"{match[1]}{match[2]}={text}" if match and text is not None else word


def _same(value: Any) -> str:
    """`1` and `1.0` are one number to a sweeper, `true` is none."""
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)


def _tokens(word: str) -> list[_Token]:
    """What it says alone, or the choices of a sweep."""
    value = _raw(word, sweeps=True)
    return [each for each in (value.list if isinstance(value, ChoiceSweep) else [value]) if isinstance(each, _Token)]


def split(text: str) -> list[str]:
    """At the commas between elements; those in quotes and brackets belong to one."""
    found, depth, quote = [""], 0, ""
    for before, mark in zip(" " + text, text, strict=False):
        if quote:
            quote = "" if mark == quote and before != "\\" else quote
        elif mark in "'\"":
            quote = mark
        depth += 0 if quote else (mark in "([{") - (mark in ")]}")
        if mark == "," and not depth and not quote and before != "\\":
            found.append("")
        else:
            found[-1] += mark
    return [each.strip() for each in found]


def quoted(word: str) -> str:
    """`key=a,b` as the one text it may mean: `key='a,b'`. Other words as they are."""
    key, equals, text = word.partition("=")
    simple = equals and not word.startswith("-") and "," in text and not re.search(r"['\"({$\\]", text) and text[:1] != "["
    return f"{key}='{text}'" if simple else word


def annotation(config: DictConfig, key: str) -> str | None:
    """Of a fixed key, a constructor's keyword or an entry of a keyword that is a dict or list; None where there is none."""
    parts = key.split(".")
    kinds: dict[str, str] = _FIXED
    node: Any = config
    for number, part in enumerate(parts):
        target = _plain(_child(node, "_target_"))
        if isinstance(target, str):
            try:
                known = targets.signature(target)
            except ConfigError:  # its module cannot be read, as the check will say
                return None
            kinds = dict(known.annotations) if known else {}
        elif number == 1 and parts[0] in _FIXED_BELOW:
            kinds = _FIXED_BELOW[parts[0]]
        elif number:
            kinds = {}
        kind = kinds.get(part)
        if number == len(parts) - 1:
            return kind
        inner = _entries(kind or "")
        if inner and number == len(parts) - 2:
            return inner
        node = _child(node, part)
    return None


def _fixed(schema: type) -> dict[str, str]:
    return {field.name: str(field.type).replace("Text", "str") for field in fields(schema)}


_FIXED = _fixed(Config)
_FIXED_BELOW: dict[str, dict[str, str]] = {"train": {}, "script": _fixed(ScriptConfig)}
"""Those of `train` are typed, and OmegaConf sees to it."""


@functools.lru_cache(maxsize=256)
def _parts(kind: str) -> frozenset[str]:
    kind = kind.strip("'\"").replace("typing.", "").replace(" ", "")
    if inner := re.fullmatch(r"Optional\[(\w+)\]", kind):
        kind = f"{inner[1]}|None"
    elif inner := re.fullmatch(r"Union\[([\w,]+)\]", kind):
        kind = inner[1].replace(",", "|")
    return frozenset(kind.split("|")) if "[" not in kind else frozenset()


def takes_text(kind: str) -> bool:
    parts = _parts(kind)
    return "str" in parts and parts <= {"str", "None", "bool", "int", "float"}


@functools.lru_cache(maxsize=256)
def _entries(kind: str) -> str:
    """The annotation of what a list or a dict holds."""
    match = re.fullmatch(
        r"(?:typing\.)?(?:list|List|Sequence|tuple|Tuple|dict|Dict|Mapping)\[(?:str, ?)?([\w| ]+)(?:, ?\.\.\.)?\](?: ?\| ?None)?", kind
    )
    return match[1] if match else ""


def _put(config: DictConfig, key: str, raw: Any, kind: str, done: dict[str, Any]) -> None:
    if tree.is_mapping(raw):
        for name, child in raw.items():
            _put(config, f"{key}.{name}", child, _entries(kind), done)
        return
    parent = _node(config, key.rpartition(".")[0])
    name = key.rpartition(".")[2]
    if not isinstance(parent, DictConfig) or name not in parent:
        return
    if isinstance(raw, list):
        value: Any = [_meant(item, _entries(kind)) for item in cast("list[Any]", raw)] if takes_text(_entries(kind)) else None
        if value is None or any(isinstance(item, list | dict) for item in cast("list[Any]", value)):
            return
    elif takes_text(kind):
        value = _meant(raw, kind)
    else:
        return
    done[key] = True
    with open_dict(config):
        parent[name] = value


class _Token(str):
    """A word without quotes that Hydra would have made a number, a truth value or null of."""

    value: Any


def _meant(raw: Any, kind: str) -> Any:
    """The word, but for a value that the field takes as well: null, a truth value, a number."""
    if isinstance(raw, _Token):
        return raw.value if raw.value is None or _fits_beside(raw.value, kind) else str(raw)  # null is no text anywhere
    return raw


def _has_token(raw: Any) -> bool:
    return isinstance(raw, _Token) or any(isinstance(value, _Token) for _, value in tree.walk(raw))


def _fits_beside(value: object, kind: str) -> bool:
    """Whether a field of this kind takes the value beside texts."""
    others = _parts(kind) - {"str"}
    return bool(others) and targets.fits(value, "|".join(others))


class _Visitor(HydraOverrideVisitor):
    def _createPrimitive(self, ctx: Any) -> Any:
        value = super()._createPrimitive(ctx)
        if value is None or isinstance(value, bool | int | float):
            token = _Token(ctx.getText().strip())
            token.value = value
            return token
        return value


def _raw(word: str, *, sweeps: bool = False) -> Any:
    original = _parser.HydraOverrideVisitor
    _parser.HydraOverrideVisitor = _Visitor
    try:
        override = _parser.OverridesParser(_parser.create_functions()).parse_override(word)
    except HydraException:  # a function such as int(…) with a word of ours in it: what Hydra made of it stands
        return None
    finally:
        _parser.HydraOverrideVisitor = original
    return override.value() if sweeps or not override.is_sweep_override() else None


def _child(node: Any, key: str) -> Any:
    """Without resolving it; None where there is none."""
    return node._get_node(key, validate_access=False) if isinstance(node, DictConfig) else None  # pyright: ignore[reportPrivateUsage]


def _plain(node: Any) -> Any:
    """The value of a leaf, without resolving it."""
    return node._value() if isinstance(node, ValueNode) else None  # pyright: ignore[reportPrivateUsage]


def _node(config: DictConfig, path: str) -> Any:
    node: Any = config
    for part in path.split(".") if path else ():
        node = _child(node, part)
    return node


def _text_fields(config: DictConfig) -> Iterator[tuple[str, str]]:
    raw: Any = OmegaConf.to_container(config)
    for path, value in tree.leaves(raw):
        if not isinstance(value, int | float):
            continue
        listed = re.fullmatch(r"([^\[]+)\[\d+\]", path)
        kind = _entries(annotation(config, listed[1]) or "") if listed else "[" not in path and annotation(config, path)
        if kind and takes_text(kind):
            yield path, kind


def _check_file(config: DictConfig, key: str, kind: str) -> None:
    """A number in a text field that nobody typed: a yaml has it."""
    place, index = key.removesuffix("]").partition("[")[::2]
    parent, name = (_node(config, place), int(index)) if index else (_node(config, key.rpartition(".")[0]), key.rpartition(".")[2])
    plain: Any = OmegaConf.to_container(parent)
    value: Any = plain[name]
    if _fits_beside(value, kind):
        return
    if isinstance(value, int) and not isinstance(value, bool):
        parent[name] = str(value)
        return
    quote = "['…']" if index else f"{name}: '…'"
    raise ConfigError(f"{key}: a yaml has {tree.shown(value)} there without quotes, which is no text; quote it there: {quote}")
