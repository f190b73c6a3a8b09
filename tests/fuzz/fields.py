"""Where a text can be typed: read off the schema and the constructors' signatures, so that a new field comes in by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from launcher import CONF
from launcher.compose import typed
from launcher.config import targets
from launcher.config.config import GROUPS, Config, TrainConfig

SLURM = ("model=resnet18", "cluster=slurm", "cluster.device=cpu", "data.offline=error")
LOCAL = ("model=resnet18", "cluster=local", "cluster.device=cpu", "data.offline=error")
NOT_RUN: dict[str, str] = {
    "trust": "names code of one's own, and no command line may say it: tests/trust/test_trust_config.py",
}
"""Fields that are no text for the fuzzer, and why. A prelude is a program, but the field is its path: it is run like all others."""


@dataclass(frozen=True)
class Field:
    """`key` as it is typed, with `+` where the entry is new; `before`: the words that it needs to be looked at."""

    key: str
    before: tuple[str, ...] = SLURM
    listed: bool = False
    """An element of a list."""
    is_key: bool = False
    """The text is the name of an entry, below `key`."""

    def __str__(self) -> str:
        where = "local " * (self.before[:4] == LOCAL)
        return f"{where}{self.key}{'[0]' * self.listed}{'.<key>' * self.is_key}"


def all_fields() -> list[Field]:
    """Every field that takes a text, once."""
    found = [*_of_schema("", Config), *_of_schema("train.", TrainConfig), *(Field(f"{group}") for group in GROUPS)]
    found += [Field("", is_key=True), Field("train", is_key=True)]
    for group, file in _choices():
        found += _of_group(group, file)
    return [field for field in dict.fromkeys(found) if field.key not in NOT_RUN]


def _of_schema(prefix: str, schema: type) -> Iterator[Field]:
    """`Any` may be a text as well."""
    for field in dataclasses.fields(schema):
        if field.name not in GROUPS:
            yield from _of_kind(f"{prefix}{field.name}", str(field.type).replace("Text", "str").replace("Any", "str"), SLURM)


def _choices() -> Iterator[tuple[str, str]]:
    for group in GROUPS:
        if group != "exp":
            yield from ((group, path.stem) for path in sorted((CONF / group).glob("*.yaml")))


def _of_group(group: str, choice: str) -> Iterator[Field]:
    """A constructor's keywords, by its signature: those that the yaml leaves out too."""
    node: dict[str, object] = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())
    base = LOCAL if (group, choice) == ("cluster", "local") else SLURM
    before = base if f"{group}={choice}" in base else (*base, f"{group}={choice}")
    if before == base:
        yield Field(f"{group}._target_", before)
    known = targets.signature(str(node["_target_"]))
    for name, kind in (known.annotations if known else {}).items():
        yield from _of_kind(f"{'' if name in node else '+'}{group}.{name}", kind, before)


def _of_kind(key: str, kind: str, before: tuple[str, ...]) -> Iterator[Field]:
    """Nothing for a number."""
    inner = typed._entries(kind)  # pyright: ignore[reportPrivateUsage]
    before = (*before, *NEEDS.get(key, ()))
    if typed.takes_text(kind):
        yield Field(key, before)
    elif typed.takes_text(inner) and "dict" in kind.lower() + "dict" * ("mapping" in kind.lower()):
        yield Field(f"+{key}.{ENTRIES.get(key, 'FUZZED')}", before)
        yield Field(key, before, is_key=True)
    elif typed.takes_text(inner):
        yield Field(key, before, listed=True)


NEEDS: Mapping[str, tuple[str, ...]] = {
    "cluster.container": ("cluster.image=x",),
    "cluster.image": ("cluster.container=apptainer",),
    "cluster.mounts": ("cluster.container=apptainer", "cluster.image=x"),
    "cluster.container_python": ("cluster.container=apptainer", "cluster.image=x"),
    "cluster.gpu_type": ("cluster.device=cuda",),
}
"""Fields that are looked at only beside others."""
ENTRIES: Mapping[str, str] = {"cluster.sbatch": "comment", "cluster.srun": "comment"}
"""An entry that is known where not just any is allowed."""
