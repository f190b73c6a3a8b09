"""`_target_`: what it may name, whether its keywords fit, and the call itself.

A config is untrusted text, and importing a module runs it. So a target is looked up in the *source* of the few packages that
are allowed, and its signature is read from the syntax tree; nothing is imported until the whole config has been found good.
A block list is no boundary (Hydra's `instantiate` stops `os.system` and lets `torch.hub.load` through); this is an allowlist.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from launcher.code import packages
from launcher.config import tree
from launcher.errors import ConfigError

OURS = {
    "model": ("models",),
    "data": ("data",),
    "loader": ("data",),
    "optim": ("launcher.train.optim", "torch.optim"),
    "schedule": ("launcher.train.schedule",),
    "strategy": ("launcher.strategies",),
    "cluster": ("launcher.clusters",),
    "task": ("launcher.train.tasks",),
}
"""Where each group's targets live; `trust` adds a project's own packages to all of them."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_TORCH_OPTIM = re.compile(r"torch\.optim\.[A-Z]\w*")


class Signature(NamedTuple):
    annotations: Mapping[str, str]
    """Keyword -> annotation as written ('' where there is none)."""
    open: bool
    """Takes `**kwargs`, or could not be read."""


def check(config: Mapping[str, Any], trust: Sequence[str]) -> None:
    """Check every `_target_` of a resolved config, nested ones too, before anything is imported.

    Raises ConfigError that names the key, says why, and what to type instead.
    """
    packages.take_in(trust)
    for group in OURS.keys() & config.keys():
        if config[group] == "???":
            raise ConfigError(f"{group} has no value and needs one; add {group}=…")
        if not tree.is_mapping(config[group]):
            raise ConfigError(f"{group}={tree.shown(config[group])} is no call of a class; choose one with {group}=…")
    nodes = ((path, node) for path, node in tree.walk(config) if tree.is_mapping(node))
    for path, node in nodes:
        if odd := [key for key in node if not isinstance(key, str)]:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"{path}: the key {tree.shown(odd[0])} is no text; quote it there, or leave it out")
        group = path.split(".")[0]
        if group in OURS and "_target_" not in node and path == group:
            raise ConfigError(f"{group}: has no _target_; choose one with {group}=…")
        if "_target_" in node:
            _check_allowed(path, node["_target_"], (*OURS.get(group, ()), *trust))
            _check_keywords(path, node, signature(node["_target_"]))


def check_trust(trust: Sequence[str]) -> None:
    """Raises ConfigError for a name of code that is not a user's own: the standard library, or what is installed."""
    for name in trust:
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top == "launcher" or packages.is_installed(top):
            raise ConfigError(
                f"trust: {name} is not a package of your own; take it out, or install your checkout of it with pip install -e"
            )


def build(node: Mapping[str, Any], **given: Any) -> Any:
    """Import and call a target that `check` has passed; nested targets first. `given` are the keywords only a worker knows.

    Raises ConfigError where it cannot be imported or does not take its keywords.
    """
    target, made = node["_target_"], imported(node)
    keywords = {key: _value(value) for key, value in node.items() if key != "_target_"}
    try:
        return made(**keywords, **given)
    except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        named = re.match(rf"\w+\.\w+|({'|'.join(OURS)})[=:]", str(error))  # a constructor that names its key needs no help from us
        raise ConfigError(str(error) if named else f"{target}: {error}") from error


def imported(node: Mapping[str, Any]) -> Any:
    """The class or function of a target that `check` has passed. Raises ConfigError where it cannot be imported."""
    module, _, name = node["_target_"].rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise ConfigError(f"{node['_target_']}: {error}") from error


def _value(value: Any) -> Any:
    if tree.is_mapping(value):
        return build(value) if "_target_" in value else {key: _value(item) for key, item in value.items()}
    return [_value(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def _check_allowed(path: str, target: object, allowed: Sequence[str]) -> None:
    where = f"{path}._target_={target!r}"
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        raise ConfigError(f"{where} is not a dotted name such as models.resnet.resnet8")
    if not any(target.startswith(f"{package}.") for package in allowed):
        places, top = ", ".join(allowed) or "nothing (this key takes no target)", target.split(".")[0]
        way = f"to allow your own package, put `trust: [{top}]` into conf/local/machine.yaml"
        if packages.is_installed(top):  # which `trust` does not take
            way = f"{top} is installed and no package of your own: name a class of yours that makes it"
        raise ConfigError(f"{where} is refused: targets here come from {places}; {way}")
    if target.startswith("torch."):
        if not _TORCH_OPTIM.fullmatch(target):
            raise ConfigError(f"{where} is refused: only optimizer classes, such as torch.optim.SGD")
    elif signature(target) is None:
        raise ConfigError(f"{where}: no such class or function{_nearest_target(target)}")


def _check_keywords(path: str, node: Mapping[str, Any], known: Signature | None) -> None:
    if known is None:
        return
    for key, value in node.items():
        if key == "_target_":
            continue
        if key not in known.annotations:
            if not known.open:
                raise ConfigError(f"{path}.{key}: {node['_target_']} takes no such keyword{nearest(key, known.annotations)}")
        elif not fits(value, known.annotations[key]):
            typed = repr(value) if isinstance(value, str) else tree.shown(value)  # '3' is a text, 3 is not
            raise ConfigError(f"{path}.{key}={typed} is not of type {known.annotations[key]}")


def nearest(name: str, choices: Sequence[str] | Mapping[str, Any], prefix: str = "") -> str:
    """`; did you mean X?`, or the choices where none is near."""
    import difflib  # for mistakes alone

    close = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.5)
    if close:
        return f"; did you mean {prefix}{close[0]}?"
    return f"; it takes {', '.join(sorted(choices))}" if choices else ""


def _nearest_target(target: str) -> str:
    module, _, name = target.rpartition(".")
    tree = module_tree(module)
    if tree is None:
        return f" (there is no module {module})"
    return nearest(name, [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)])


@functools.lru_cache(maxsize=256)
def signature(target: str) -> Signature | None:
    """The keywords of a class or function, read from its module's source. None where the module does not define it.

    torch.optim classes are re-exported from files we would have to import to find: they come back open, and the worker's own
    call is their check.
    """
    if target.startswith("torch."):
        return Signature({}, open=True)
    module, _, name = target.rpartition(".")
    tree = module_tree(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _of_arguments(node.args, skip=0)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _of_class(node, module, tree)
    return None


def inputs(target: str) -> list[str] | None:
    """The names of what `forward` of a class takes, read from its module's source; None where the source does not say it."""
    module, _, name = target.rpartition(".")
    tree = module_tree(module)
    for node in tree.body if tree else ():
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "forward" and not item.args.vararg:
                    return [each.arg for each in (*item.args.posonlyargs, *item.args.args)][1:]
    return None


def _of_class(node: ast.ClassDef, module: str, tree: ast.Module | None) -> Signature:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _of_arguments(item.args, skip=1)
    if _is_dataclass(node):
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
        names = {_written(item.target): _written(item.annotation) for item in fields}
        own = {name: kind for name, kind in names.items() if "ClassVar" not in kind}
        return Signature({**_inherited(node, module, tree), **own}, open=False)
    return Signature({}, open=bool(node.bases))


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _inherited(node: ast.ClassDef, module: str, tree: ast.Module | None) -> dict[str, str]:
    """The fields of a dataclass that its bases have, as long as those are dataclasses, of this module or imported into it by name."""
    found: dict[str, str] = {}
    for base in (each.id for each in reversed(node.bases) if isinstance(each, ast.Name)):
        imports = (each for each in (tree.body if tree else ()) if isinstance(each, ast.ImportFrom) and each.module and not each.level)
        places = {alias.asname or alias.name: f"{each.module}.{alias.name}" for each in imports for alias in each.names}
        where, _, name = places.get(base, f"{module}.{base}").rpartition(".")
        source = module_tree(where)
        for other in source.body if source else ():
            if isinstance(other, ast.ClassDef) and other.name == name and _is_dataclass(other):
                found |= _of_class(other, where, source).annotations
    return found


def _of_arguments(args: ast.arguments, skip: int) -> Signature:
    names = [*args.posonlyargs, *args.args][skip:] + args.kwonlyargs
    kinds = {arg.arg: _written(arg.annotation) if arg.annotation else "" for arg in names}
    return Signature(kinds, open=args.kwarg is not None)


def _written(node: ast.expr) -> str:
    """The source of an annotation. Most are a name, or two with a bar between: `ast.unparse` takes as long as parsing the function."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return f"{_written(node.left)} | {_written(node.right)}"
    return ast.unparse(node)


@functools.lru_cache(maxsize=64)
def module_tree(name: str) -> ast.Module | None:
    """Parse a module found by path: `find_spec` of a dotted name would import its parents."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top) or packages.in_working_directory(top)  # to be read; it is run only after `take_in`
    if spec is None:
        return None
    if not rest:
        places = [Path(spec.origin)] if spec.origin else []
    else:
        folders = [Path(folder).joinpath(*rest) for folder in spec.submodule_search_locations or ()]
        places = [place for folder in folders for place in (folder.with_suffix(".py"), folder / "__init__.py")]
    for place in places:
        if place.is_file():
            try:
                return ast.parse(place.read_text(encoding="utf-8"), filename=str(place))
            except (SyntaxError, ValueError, OSError) as error:
                raise ConfigError(f"{name} cannot be read as Python: {error}; correct it there") from error
    return None


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


_CHECKS = {"int": _is(int), "float": _is(int, float), "bool": _is(bool), "str": _is(str), "None": _is(type(None))}


def fits(value: object, annotation: str) -> bool:
    """Whether a plain value fits an annotation of int, float, bool, str, None and their unions; other annotations are not judged."""
    parts = [part.strip() for part in annotation.split("|")] if "[" not in annotation else []
    if not parts or any(part not in _CHECKS for part in parts):
        return True
    return any(_CHECKS[part](value) for part in parts)
