"""`${oc.env:NAME}` in a config: what is written of it, what a job script makes of it, and where it cannot be.

A config is resolved twice where it has any: once for what the values are here, and once with a mark in the place of each variable, which
shows where it went. docs/decisions/0090.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from launcher.config import home, tree
from launcher.errors import ConfigError
from launcher.shell import Late, Variable
from launcher.trust.secret import looks_public, looks_secret, mask

_NONE = object()
_MARK = "\ue000(\\d+)\ue001"
_ENVIRONMENT_ONLY = r"([^$\\]|\$\{oc\.env:\w+\})*"
_REFERENCE = r"\$\{([A-Za-z_][\w.]*)\}"
_WRITTEN = r"train\.|resume$|cluster\.(device|gpu_request|container|processes_per_node|time|warning)$|([\w.\[\]]+\.)?_target_$"
"""Texts that the launcher and all ranks have to agree on; each is one of a few words, or of a form that is checked."""
_OF_THE_SHELL = r"cluster\.((env|srun)\.|(image|mounts|container_python)$)"
_DIRECTORIES = r"(name|id|runs_dir|objective(\.\w+)?|trust(\[\d+\])?)$"
_OF_A_SCRIPT = r"script\.(args|resume_args)\[\d+\]$"
_GIVEN = r"LAUNCHER_(RUN_DIR|CHECKPOINT_DIR|ATTEMPT)|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT"
"""What each process of a script has, and nobody before it: its words may name it."""


def listen() -> None:
    """From here on what a config asks for is known to `mask`."""
    OmegaConf.register_new_resolver("oc.env", _heard, replace=True)


def _heard(key: Any, default: Any = _NONE, *, _node_: Any) -> Any:
    mask.ask(str(key))
    if str(key) not in os.environ and default is _NONE:
        if re.fullmatch(_GIVEN, str(key)) and re.match(_OF_A_SCRIPT, _node_._get_full_key(None)):
            return f"${key}"
        raise KeyError(f"the environment has no variable {key}")
    return oc.env(key) if default is _NONE else oc.env(key, default)


def resolved(node: Any) -> Any:
    """Plain values, every interpolation resolved. Raises ConfigError, which names the key and the variable that is missing."""
    listen()
    try:
        return OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        key, text = getattr(error, "full_key", None) or "config", str(error).splitlines()[0]
        if missing := re.search(r"the environment has no variable (.*?)['\"]*$", text):
            raise ConfigError(
                f"{key}: ${{oc.env:{missing[1]}}} names a variable that the environment does not have; "
                f"export {missing[1]} where this is started"
            ) from None
        if "GrammarParseError" in text and mask.asked:  # it quotes pieces of the value
            raise ConfigError(
                f"{key}: what oc.decode has from the environment is no value in Hydra's grammar; leave out oc.decode"
            ) from None
        raise ConfigError(f"{key}: {mask(text)}") from error


# ---------------------------------------------------------------- what is written


def frozen(written: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved `values` of the config `written`, as every process will read them: a text that comes from the environment as the
    reference it was, every other `${` escaped. Raises ConfigError where that cannot be.
    """
    if "oc.env" not in str(written):
        return _escaped(values)
    kept = _kept(values, written, written)
    if kept is tree.ABSENT:
        marks = _Marks()
        kept = _woven(values, marks.resolve(written), marks, "")
    return cast("dict[str, Any]", kept)


def _escaped(value: Any) -> Any:
    if tree.is_mapping(value):
        return {key: _escaped(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_escaped(child) for child in cast("list[Any]", value)]
    return escaped(value) if isinstance(value, str) else value


def escaped(text: str) -> str:
    """As OmegaConf reads it back: a backslash before `${` stands for itself where it is doubled."""
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text) if "${" in text else text


def _kept(value: Any, written: Any, root: Mapping[str, Any], path: str = "") -> Any:
    """What `_woven` would keep, in a tenth of its 4 ms, where that can be told from the text. ABSENT where it cannot."""
    if tree.is_mapping(value) and tree.is_mapping(written):
        kept = {key: _kept(child, written.get(key), root, f"{path}.{key}" if path else str(key)) for key, child in value.items()}
        return tree.ABSENT if tree.ABSENT in kept.values() else kept
    if isinstance(value, list) and isinstance(written, list):
        pairs = zip(cast("list[Any]", value), cast("list[Any]", written), strict=True)
        items: list[Any] = [_kept(*pair, root, path) for pair in pairs]
        return tree.ABSENT if tree.ABSENT in items else items
    if "$" not in str(written):
        return _escaped(value)
    if "oc.env" in str(written):
        simple = isinstance(value, str) and re.fullmatch(_ENVIRONMENT_ONLY, written) and not _is_told(path)
        return written if simple else tree.ABSENT
    found = [tree.look_up(root, key) for key in re.findall(_REFERENCE, written)]
    clear = "$" not in re.sub(_REFERENCE, "", written) and all("$" not in str(it) and it is not tree.ABSENT for it in found)
    return _escaped(value) if clear else tree.ABSENT


def _is_told(path: str) -> bool:
    return bool(re.match(_DIRECTORIES, path) or re.match(_WRITTEN, path) or path.startswith("cluster."))


def _woven(value: Any, marked: Any, marks: _Marks, path: str) -> Any:
    """`value` where no mark is in its place, else the reference."""
    if tree.is_mapping(value) and tree.is_mapping(marked):
        return {key: _woven(child, marked.get(key), marks, f"{path}.{key}" if path else str(key)) for key, child in value.items()}
    if isinstance(value, list) and isinstance(marked, list):
        pairs = zip(cast("list[Any]", value), cast("list[Any]", marked), strict=True)
        return [_woven(*pair, marks, f"{path}[{index}]") for index, pair in enumerate(pairs)]
    names = marks.names(marked)
    if not names:
        return _escaped(value)
    if value is None or (isinstance(value, str | list | Mapping) and not re.match(_WRITTEN, path)):
        _refuse_in_a_name(path, names)
        cut = re.match(_DIRECTORIES, path) or (path.startswith("cluster.") and all(map(looks_public, names)))
        return _escaped(value) if cut else marks.spelled(str(marked))
    if secret := next(filter(looks_secret, names), None):
        raise ConfigError(
            f"{path}: a number, and what the launcher itself reads, is written with the run, and {secret} is called as a secret is; "
            "type the value, or give the variable another name"
        )
    return _escaped(value)


def _refuse_in_a_name(path: str, names: list[str]) -> None:
    secret = next((name for name in names if not looks_public(name) and name in os.environ), None)
    if secret is not None and re.match(_DIRECTORIES, path):
        raise ConfigError(
            f"{path}: what ${{oc.env:{secret}}} names would be written everywhere, for its name does not say that it is a place or a user; "
            f"type {path}=… with the text itself, or call the variable …_DIR, …_USER or …_RUN"
        )


def changed(asked: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Of keywords that were found for others, in a config's spelling: those that it does not have as they are."""
    told = {key: value for key, value in found.items() if key not in asked or not _same(asked[key], value)}
    return {key: mask.as_reference(escaped(value)) if isinstance(value, str) else value for key, value in told.items()}


def _same(one: Any, other: Any) -> bool:
    return one == other or (isinstance(one, str) and isinstance(other, str) and os.path.normpath(one) == os.path.normpath(other))


# ---------------------------------------------------------------- what a job script makes of it


def late(node: Any) -> Any:
    """A frozen `cluster` as its constructor gets it: a text with a reference in it becomes one that the job's shell completes."""
    if "${" not in str(node):
        return node
    marks = _Marks()
    return _late(marks.resolve({"cluster": node})["cluster"], marks, "cluster")  # so that an error names the whole key


def _late(marked: Any, marks: _Marks, path: str) -> Any:
    if tree.is_mapping(marked):
        return {key: _late(child, marks, f"{path}.{key}") for key, child in marked.items()}
    if isinstance(marked, list):
        return [_late(child, marks, path) for child in cast("list[Any]", marked)]
    if not isinstance(marked, str) or not marks.names(marked):
        return marked
    if not re.match(_OF_THE_SHELL, path):
        raise ConfigError(
            f"{path}: ${{oc.env:{marks.names(marked)[0]}}} would be written with the run, for nobody reads it later; "
            "type the text itself, or call the variable …_ACCOUNT, …_PARTITION, …_DIR, …_USER or the like"
        )
    if not path.startswith("cluster.env.") and (secret := next(filter(looks_secret, marks.names(marked)), None)):
        raise ConfigError(
            f"{path}: ${{oc.env:{secret}}} would be an argument of srun, which every account of the node sees; "
            "export it with cluster.env under a name that the program reads"
        )
    return Late(marks.spelled(marked), marks.pieces(marked, path))


# ---------------------------------------------------------------- marks


@dataclass
class _Mark:
    spelled: str
    """As a config has it."""
    names: list[str]
    variable: Variable | None
    """None where a shell could not say it."""
    value: str | None = None


@dataclass
class _Marks:
    found: list[_Mark] = field(default_factory=list[_Mark])

    def resolve(self, written: Any) -> Any:
        """Everything resolved but the environment. Raises ConfigError."""
        untyped: Any = OmegaConf.create(written)  # where a number is due, a mark would not fit
        with self._in_place():
            return home.everywhere(resolved_by(untyped))

    def names(self, marked: Any) -> list[str]:
        return [name for number in re.findall(_MARK, str(marked)) for name in self.found[int(number)].names]

    def spelled(self, text: str) -> str:
        """A text with marks as a config would have it."""
        parts = re.split(_MARK, text)
        plain = [_before_reference(escaped(part)) for part in parts[:-1:2]] + [escaped(parts[-1])]
        return "".join(self.found[int(part)].spelled if index % 2 else plain[index // 2] for index, part in enumerate(parts))

    def pieces(self, text: str, path: str) -> tuple[str | Variable, ...]:
        """Raises ConfigError."""
        parts = re.split(_MARK, text)
        return tuple(self._variable(int(part), path) if index % 2 else part for index, part in enumerate(parts) if part)

    def _variable(self, number: int, path: str) -> Variable:
        mark = self.found[number]
        if mark.variable is None:
            raise ConfigError(
                f"{path}: {mark.spelled} cannot be said in a job script; type ${{oc.env:NAME}} or ${{oc.env:NAME,text}} there"
            )
        return mark.variable

    @contextmanager
    def _in_place(self) -> Generator[None]:
        saved: Any = {"oc.env": _heard, "oc.decode": oc.decode, "oc.create": oc.create, "oc.select": oc.select}
        ours: dict[str, Callable[..., Any]] = {
            "oc.env": self._env,
            "oc.decode": self._decode,
            "oc.create": self._create,
            "oc.select": self._select,
        }
        for name, resolver in ours.items():
            OmegaConf.register_new_resolver(name, resolver, replace=True)
        try:
            yield
        finally:
            for name, resolver in saved.items():
                OmegaConf.register_new_resolver(name, resolver, replace=True)

    def _mark(self, spelled: str, names: list[str], variable: Variable | None = None, value: str | None = None) -> str:
        self.found.append(_Mark(spelled, names, variable, value))
        return f"\ue000{len(self.found) - 1}\ue001"

    def _env(self, key: Any, default: Any = _NONE) -> str:
        name = self._value(str(key))
        words = self.spelled(str(key)) + ("" if default is _NONE else f",{self._argument(default)}")
        plain = default is _NONE or (default is not None and not self.names(default))
        shell = plain and not self.names(key) and re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)
        variable = Variable(name, None if default is _NONE else str(default)) if shell else None
        value = os.environ.get(name, None if default is _NONE else self._value(str(default)))
        return self._mark(f"${{oc.env:{words}}}", [name, *self.names(key), *self.names(default)], variable, value)

    def _argument(self, value: Any) -> str:
        """In quotes as OmegaConf's grammar has them."""
        if not isinstance(value, str):
            return "null" if value is None else str(value)
        if re.fullmatch(_MARK, value):
            return self.spelled(value)
        text = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), self.spelled(value))
        return f"'{text}'"

    def _decode(self, expression: Any, _parent_: Any, _node_: Any) -> Any:
        if names := self.names(expression):
            return self._mark(f"${{oc.decode:{self._argument(expression)}}}", names)
        return oc.decode(expression, _parent_, _node_)

    def _create(self, value: Any, _parent_: Any) -> Any:
        if names := self.names(value):
            return self._mark(f"${{oc.create:{self._argument(value)}}}", names)
        return oc.create(value, _parent_)

    def _select(self, key: Any, *default: Any, _parent_: Any) -> Any:
        """What is chosen by a variable is no part of it."""
        return oc.select(self._value(str(key)), *default, _parent_=_parent_)

    def _value(self, text: str) -> str:
        """With the variables in it read."""
        return re.sub(_MARK, lambda mark: self.found[int(mark[1])].value or "", text)


def _before_reference(text: str) -> str:
    return re.sub(r"\\+$", lambda found: found[0] * 2, text)


def resolved_by(node: Any) -> Any:
    try:
        return OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise ConfigError(
            f"{key}: what the environment names can be a value and no part of a key or a question; {str(error).splitlines()[0]}"
        ) from None
