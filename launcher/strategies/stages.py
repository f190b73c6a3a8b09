"""A model in stages: which modules each has, and how its `forward` comes to run a part of itself.

A model's file names in STAGES the modules that `forward` calls one after the other, each with what the one before gives. It is not told
that it is cut: every stage runs the whole of it, on a copy of the tree in which other modules stand where a stage has none of its own. The
first module of a stage is given what was received in place of its first argument, those before it pass that on, and the first one behind
the stage ends the call with what it was given.
"""

# pyright: standard
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from launcher.errors import ConfigError


class Reached(BaseException):
    """A call has come to the end of its stage. No Exception: whoever catches those in a model or a task does not mean this."""

    def __init__(self, activation: torch.Tensor) -> None:
        super().__init__()
        self.activation = activation


class Mail:
    """What came from the stage before, and how far a call has come."""

    def __init__(self, names: Sequence[str]) -> None:
        """`names`: of all modules of STAGES."""
        self.received: torch.Tensor | None = None
        self.copies = False
        """Whether the first module changes in place what it is given."""
        self._names, self._next, self._is_open = names, 0, False

    def open(self, received: torch.Tensor | None) -> None:
        """A call begins."""
        self.received, self._next, self._is_open = received, 0, True

    def shut(self) -> None:
        """It is over, or has failed."""
        self.received, self._is_open = None, False

    def come(self, place: int) -> None:
        """To the module with that number. Raises ConfigError where another one was due."""
        if not self._is_open:
            raise ConfigError(
                f"strategy=pp: {self._names[place]} is called when forward is over, as by torch.utils.checkpoint in the model; leave it "
                "out and type train.activation_checkpointing=full, or strategy=fsdp"
            )
        if place != self._next:
            raise ConfigError(f"strategy=pp: forward calls {self._names[place]} {self._due()}")
        self._next += 1

    def close(self) -> None:
        """A call has come to the model's end. Raises ConfigError where it left a module out."""
        if self._next < len(self._names):
            raise ConfigError(f"strategy=pp: forward ends {self._due()}")

    def _due(self) -> str:
        due = self._names[self._next] if self._next < len(self._names) else "its end"
        return (
            f"where {due} is due: STAGES in the model's file has to be the order in which they are called, each once in every call; "
            "mend it there, or type strategy=fsdp"
        )


class _StandIn(nn.Module):
    def __init__(self, mail: Mail, place: int) -> None:
        super().__init__()
        self._mail, self._place = mail, place


class _Passed(_StandIn):
    """In the place of a module of an earlier stage. What it gives is no number: whatever is made of it is not to be used."""

    def forward(self, *ignored: Any, **named: Any) -> torch.Tensor:
        self._mail.come(self._place)
        received = self._mail.received
        assert received is not None
        return received.detach().new_full((), float("nan")).expand_as(received) if received.is_floating_point() else received.detach()


class _Own(_StandIn):
    """A module of this stage."""

    def __init__(self, module: nn.Module, mail: Mail, place: int) -> None:
        super().__init__(mail, place)
        self.module = module

    def forward(self, *given: Any, **named: Any) -> Any:
        self._mail.come(self._place)
        return self.module(*given, **named)


class _Enter(_Own):
    """The first one."""

    def forward(self, *given: Any, **named: Any) -> Any:
        received = self._mail.received
        received = received.clone() if received is not None and self._mail.copies else received
        if given:
            return super().forward(received, *given[1:], **named)
        return super().forward(**{**named, next(iter(named)): received})


class _Leave(_StandIn):
    """In the place of a module of a later stage."""

    def forward(self, *given: Any, **named: Any) -> None:
        self._mail.come(self._place)
        raise Reached(given[0] if given else next(iter(named.values())))


@dataclass
class Stage:
    number: int
    module: nn.Module
    """What runs it, with the modules of the model."""
    mail: Mail
    copies: list[tuple[nn.Module, nn.Module]] = field(default_factory=list[tuple[nn.Module, nn.Module]])
    """The model's own containers, and what stands for them in `module`."""

    def follow(self) -> None:
        """Train or evaluate as the model does."""
        for own, copied in self.copies:
            copied.training = own.training


class Holder:
    """Of a parameter: its whole shape, and the processes of a pipeline that have it."""

    def __init__(self, shape: Sequence[int], places: frozenset[int]) -> None:
        self.shape, self.places = tuple(shape), places


HOLDERS: WeakKeyDictionary[nn.Module, Mapping[str, Holder]] = WeakKeyDictionary()
"""Of each model that was cut, by the names of its parameters."""


def units(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The names of its modules that match, in the order of the patterns; a `*` stands for one part of a name. Raises ConfigError where a
    pattern matches nothing, or a parameter is in none of them."""
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matching = {name: module for name, module in model.named_modules() if _matches(name, pattern)}
        if not matching:
            raise ConfigError(f"model: STAGES in its file has {pattern!r}, and there is no such module; write names as blocks.* there")
        found |= matching
    inside = {id(parameter) for module in found.values() for parameter in module.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) not in inside:
            raise ConfigError(f"model: STAGES in its file has no module with {name}; add one, in the order in which they are called")
    return list(found)


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def shares(model: nn.Module, names: Sequence[str], count: int, cut: Sequence[str] | None) -> list[Sequence[str]]:
    """Those units in `count` stages: each begins with one of `cut`, but for the first; None: so that the largest has as few parameters as
    can be. Raises ConfigError where they cannot."""
    if count > len(names):
        raise ConfigError(f"strategy.pp: {count} stages of a model of {len(names)} parts cannot be; type fewer, or a larger model")
    if cut is None:
        begins = _balanced([sum(each.numel() for each in model.get_submodule(name).parameters()) for name in names], count)
    elif strange := [name for name in cut if name not in names[1:]]:
        raise ConfigError(f"strategy.cut: no stage can begin with {strange[0]}; type some of {', '.join(names[1:])}")
    elif len(set(cut)) != count - 1:
        raise ConfigError(f"strategy.cut={list(cut)} makes {len(set(cut)) + 1} stages, and there are {count}; name {count - 1} modules")
    else:
        begins = [0, *sorted(names.index(name) for name in set(cut))]
    return [names[begin:end] for begin, end in zip(begins, [*begins[1:], len(names)], strict=True)]


def _balanced(sizes: Sequence[int], count: int) -> list[int]:
    """Where each of `count` runs of `sizes` begins, none of them empty, so that the largest sum is as small as can be."""
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(_packed(sizes, middle)) <= count else (middle + 1, high)
    begins = _packed(sizes, low)
    while len(begins) < count:  # fewer would do: halve what has several
        ends = [*begins[1:], len(sizes)]
        at = max(range(len(begins)), key=lambda run: ends[run] - begins[run])
        begins.insert(at + 1, (begins[at] + ends[at]) // 2)
    return begins


def _packed(sizes: Sequence[int], most: int) -> list[int]:
    begins, total = [0], 0
    for place, size in enumerate(sizes):
        if total + size > most and place > begins[-1]:
            begins.append(place)
            total = 0
        total += size
    return begins


def stage(model: nn.Module, parts: Sequence[Sequence[str]], number: int) -> Stage:
    """The one with that number of those that `shares` gave."""
    mail = Mail([name for names in parts for name in names])
    made = Stage(number, _shallow(model), mail)
    made.copies.append((model, made.module))
    places = ((at, name) for at, names in enumerate(parts) for name in names)
    for place, (at, name) in enumerate(places):
        parent, _, own = name.rpartition(".")
        container = _own_container(made, model, parent)
        if at < number:
            setattr(container, own, _Passed(mail, place))
        elif at > number:
            setattr(container, own, _Leave(mail, place))
        else:
            kind = _Enter if number and name == parts[number][0] else _Own
            setattr(container, own, kind(model.get_submodule(name), mail, place))
    return made


def _own_container(made: Stage, model: nn.Module, name: str) -> nn.Module:
    """The container of that name in the stage's tree, copied on the way to it where it is the model's yet."""
    copied, own = made.module, model
    for part in name.split(".") if name else ():
        own = own.get_submodule(part)
        if copied.get_submodule(part) is own:
            setattr(copied, part, _shallow(own))
            made.copies.append((own, copied.get_submodule(part)))
        copied = copied.get_submodule(part)
    return copied


def _shallow(module: nn.Module) -> nn.Module:
    made = module.__new__(type(module))
    made.__dict__ = {**module.__dict__, "_modules": dict(module._modules)}
    return made


def leave(model: nn.Module, parts: Sequence[Sequence[str]], places: Sequence[int], place: int) -> None:
    """Take out of the modules of `model` that no stage at `place` has what is in them: of a parameter its name stays, and nothing else.

    `places`: of each stage, which process of the pipeline has it. Fills HOLDERS. Raises ConfigError where one process has a parameter in
    two of its stages.
    """
    at: dict[int, list[int]] = {}
    for names, owner in zip(parts, places, strict=True):
        for each in {id(each) for name in names for each in model.get_submodule(name).parameters()}:
            at.setdefault(each, []).append(owner)
    holders = {name: Holder(each.shape, frozenset(at[id(each)])) for name, each in model.named_parameters()}
    for name, each in model.named_parameters():
        if len(at[id(each)]) != len(holders[name].places) or len(at[id(each)]) > 2:
            raise ConfigError(f"strategy=pp: {name} is in {len(at[id(each)])} stages, and one process has two of them; untie it")
    empty: dict[int, nn.Parameter] = {}
    for names, owner in zip(parts, places, strict=True):
        for module in (module for name in names for module in model.get_submodule(name).modules() if owner != place):
            for name, _ in list(module.named_buffers(recurse=False, remove_duplicate=False)):
                delattr(module, name)
            for name, each in list(module.named_parameters(recurse=False, remove_duplicate=False)):
                made = nn.Parameter(torch.empty((0,) * max(1, each.ndim), dtype=each.dtype), each.requires_grad)
                setattr(module, name, empty.setdefault(id(each), made))
    HOLDERS[model] = holders


def held(model: nn.Module, place: int) -> list[tuple[nn.Parameter, frozenset[int]]]:
    """The parameters that are at `place`, and all places that have them."""
    return [(each, HOLDERS[model][name].places) for name, each in model.named_parameters() if place in HOLDERS[model][name].places]
