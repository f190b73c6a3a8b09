"""The floor plan as a rule: who may import what, how long a file and a function may be.

Read from syntax trees, so that nothing is imported. `top` imports run when the module is imported; `inner` ones when a function is
called. A name under `if TYPE_CHECKING` is not there at run time and binds nobody.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import REPO

STDLIB = frozenset(sys.stdlib_module_names)
HEAVY = ("torch", "accelerate", "numpy", "safetensors")
PACKAGES = ("launcher", "models", "data")
FILE_LINES, FUNCTION_LINES = 320, 70

TRAIN = ("launcher.train",)
CONFIG_HALF = ("launcher.compose", "launcher.freeze", "launcher.run", "launcher.show", "launcher.config", "hydra", "omegaconf")
"""What costs the start of Hydra: not for `status`, `logs` and `--help`."""


@dataclass(frozen=True)
class Rule:
    """`only`: what may be imported beside the standard library, and nothing else. `never`: what may not, at any depth of a function."""

    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()
    stdlib: bool = True


RULES: dict[str, Rule] = {
    # module, or package.* for everything in it; the first line that fits decides
    "launcher.errors": Rule(only=()),
    "launcher.reading": Rule(only=()),
    "launcher.bounds": Rule(only=("yaml",)),
    "launcher.preflight": Rule(only=("launcher.bounds", "launcher.errors", "hydra", "omegaconf")),
    "launcher.terminal": Rule(only=("launcher.errors",)),
    "launcher.plan": Rule(only=("launcher.errors", "launcher.reading")),
    "launcher.secret": Rule(only=()),
    "launcher.sieve": Rule(only=("launcher.secret",)),
    "launcher.owner": Rule(only=("launcher.PROJECT", "launcher.errors")),
    "launcher.writing": Rule(only=()),
    "launcher.rundir": Rule(
        only=("launcher.errors", "launcher.owner", "launcher.plan", "launcher.reading", "launcher.secret", "launcher.writing")
    ),
    "launcher.flaws": Rule(only=("launcher.errors", "launcher.evidence", "launcher.reading", "launcher.rundir")),
    "launcher.lookup": Rule(
        only=(
            "launcher.CONF",
            "launcher.errors",
            "launcher.foreign",
            "launcher.noted",
            "launcher.owner",
            "launcher.reading",
            "launcher.rundir",
        )
    ),
    "launcher.noted": Rule(only=("launcher.reading", "launcher.writing")),
    "launcher.foreign": Rule(only=("launcher.errors", "launcher.owner", "launcher.reading")),
    "launcher.origin": Rule(only=("launcher.errors", "launcher.reading", "launcher.rundir")),
    "launcher.shell": Rule(only=()),
    "launcher.lock": Rule(only=("launcher.errors", "launcher.reading", "launcher.standin", "launcher.writing")),
    "launcher.standin": Rule(only=("launcher.reading", "launcher.writing")),
    "launcher.home": Rule(only=("launcher.errors",)),
    "launcher.program": Rule(only=()),
    "launcher.submit": Rule(
        only=("launcher.PROJECT", "launcher.deathsig", "launcher.errors", "launcher.plan", "launcher.program", "launcher.secret")
    ),
    "launcher.deathsig": Rule(only=()),
    "launcher.claim": Rule(only=("launcher.errors", "launcher.rundir")),
    "launcher.node": Rule(only=("launcher.errors", "launcher.headway", "launcher.rundir", "launcher.writing")),
    "launcher.headway": Rule(only=("launcher.errors", "launcher.reading", "launcher.rundir")),
    "launcher.code_size": Rule(only=("launcher.errors",)),
    "launcher.snapshot": Rule(
        only=("launcher.code_size", "launcher.errors", "launcher.git", "launcher.no_code", "launcher.no_secret", "launcher.packages")
    ),
    "launcher.no_secret": Rule(only=("launcher.git",)),
    "launcher.packages": Rule(only=("launcher.errors", "launcher.owner")),
    "launcher.code_hash": Rule(only=("launcher.no_code", "launcher.packages", "launcher.snapshot")),
    "launcher.git": Rule(only=("launcher.errors", "launcher.program")),
    "launcher.site": Rule(only=("launcher.clusters.slurm_options",)),
    "launcher.no_code": Rule(only=()),
    "launcher.scheduler": Rule(only=("launcher.errors", "launcher.submit")),
    "launcher.machine": Rule(only=()),
    "launcher.recorder": Rule(only=()),
    "launcher.gpus": Rule(only=()),
    "launcher.progress": Rule(only=()),
    "launcher.tail": Rule(only=("launcher.reading",)),
    "launcher.tree": Rule(only=()),
    "launcher.config": Rule(only=("omegaconf",)),
    "launcher.targets": Rule(only=("launcher.errors", "launcher.packages", "launcher.tree")),
    "launcher.clusters.*": Rule(
        only=("launcher.plan", "launcher.shell", "launcher.errors", "launcher.gpus", "launcher.machine", "launcher.clusters")
    ),
    "launcher.strategies.*": Rule(only=("launcher.plan", "launcher.errors", "torch", "accelerate")),
    "launcher.judge": Rule(only=("launcher.diagnose", "launcher.plan")),
    "launcher.report_table": Rule(only=("launcher.judge", "launcher.plan")),
    "launcher.findings": Rule(only=("launcher.errors", "launcher.judge", "launcher.plan", "launcher.reading", "launcher.rundir")),
    "launcher.status": Rule(never=(*CONFIG_HALF, *TRAIN, *HEAVY)),
    "launcher.standing": Rule(never=(*CONFIG_HALF, *TRAIN, *HEAVY)),
    "launcher.why": Rule(never=(*CONFIG_HALF, *TRAIN, *HEAVY)),
    "launcher.gpu_words": Rule(only=()),
    "launcher.signatures": Rule(only=("launcher.gpu_words",)),
    "launcher.evidence": Rule(only=("launcher.plan", "launcher.progress", "launcher.reading", "launcher.rundir")),
    "launcher.diagnose": Rule(only=("launcher.errors", "launcher.evidence", "launcher.progress", "launcher.rundir", "launcher.signatures")),
    "launcher.logs": Rule(never=(*CONFIG_HALF, *TRAIN, *HEAVY)),
    "launcher.help": Rule(never=(*CONFIG_HALF, *TRAIN, *HEAVY)),
    "launcher.cli": Rule(never=(*TRAIN, *HEAVY)),
    "launcher.worker": Rule(never=("hydra", "launcher.compose", "launcher.run")),
    "launcher.train.*": Rule(never=("hydra", "launcher.compose", "launcher.run", "launcher.cli", "models", "data")),
    "launcher.*": Rule(never=(*TRAIN, *HEAVY, "models", "data")),
    "models.*": Rule(only=("torch", "models"), never=("torch.distributed",)),
    "data.*": Rule(never=("launcher", "models", "torch.distributed", "accelerate")),
}

LIGHT = tuple(f"launcher{part}" for part in ("", ".clusters", ".strategies"))
"""Packages whose modules import nothing heavy when they are imported, whatever their rule lets a function do."""


@dataclass(frozen=True)
class Import:
    name: str
    line: int
    top: bool


def imports_of(source: str) -> list[Import]:
    """Every import of a module by its full dotted name; `from a import b` counts as `a.b`."""
    return list(_imports(ast.parse(source), top=True))


def _imports(node: ast.AST, top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            yield from (Import(f"{module}.{alias.name}", child.lineno, top) for alias in child.names)
        else:
            yield from _imports(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def violations(module: str, source: str) -> list[str]:
    """`module:line imports name`, for each import that `module` may not have."""
    rule = next((rule for pattern, rule in RULES.items() if _fits(module, pattern)), None)
    light = module.rpartition(".")[0] in LIGHT
    found = []
    for here in imports_of(source):
        if here.name.startswith("__future__."):
            continue
        ours_or_theirs = not _below(here.name, STDLIB)
        wrong = (
            rule is None
            or here.name.startswith(".")
            or _below(here.name, rule.never)
            or (rule.only is not None and ours_or_theirs and not _below(here.name, rule.only))
            or (not rule.stdlib and not ours_or_theirs)
            or (light and here.top and _below(here.name, HEAVY))
        )
        if wrong:
            found.append(f"{module}:{here.line} imports {here.name}")
    return found


def _fits(module: str, pattern: str) -> bool:
    return module == pattern or (pattern.endswith(".*") and f"{module}.".startswith(pattern[:-1]))


def _below(name: str, packages: tuple[str, ...] | frozenset[str]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:depth]) in packages for depth in range(1, len(parts) + 1))


def _modules() -> list[tuple[str, Path]]:
    found = []
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            name = ".".join(path.relative_to(REPO).with_suffix("").parts)
            found.append((name.removesuffix(".__init__"), path))
    return found


MODULES = _modules()


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[module for module, _ in MODULES])
def test_a_module_imports_what_its_floor_allows(module: str, path: Path) -> None:
    assert violations(module, path.read_text(encoding="utf-8")) == []


def test_every_rule_is_about_a_module_that_exists() -> None:
    unused = [pattern for pattern in RULES if not any(_fits(module, pattern) for module, _ in MODULES)]
    assert unused == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("launcher.errors", "import yaml"),
        ("launcher.plan", "from launcher import rundir"),
        ("launcher.plan", "import omegaconf"),
        ("launcher.rundir", "from launcher.submit import start"),
        ("launcher.shell", "from launcher.errors import ConfigError"),
        ("launcher.submit", "def start():\n    import torch"),
        ("launcher.clusters.slurm", "from launcher.rundir import RunDir"),
        ("launcher.clusters.slurm", "from launcher import freeze"),
        ("launcher.strategies.fsdp", "import torch"),
        ("launcher.strategies.fsdp", "class A:\n    from torch import nn"),
        ("launcher.strategies.fsdp", "try:\n    import accelerate\nexcept ImportError:\n    pass"),
        ("launcher.strategies.fsdp", "def wrap():\n    from launcher.train import loop"),
        ("launcher.run", "def late():\n    import numpy as np"),
        ("launcher.compose", "from launcher.train.work import work"),
        ("launcher.status", "from launcher import compose"),
        ("launcher.help", "import hydra"),
        ("launcher.cli", "from launcher import train"),
        ("launcher.train.loop", "from launcher.compose import compose"),
        ("launcher.train.loop", "from data import order"),
        ("launcher.train.tasks.text", "import hydra"),
        ("models.vit", "from launcher.errors import ConfigError"),
        ("models.vit", "import torch.distributed as dist"),
        ("models.vit", "from torch import distributed"),
        ("models.vit", "def f():\n    from torch.distributed import get_rank"),
        ("models.vit", "import numpy"),
        ("data.text", "from models.resnet import resnet8"),
        ("data.text", "import launcher"),
        ("data.text", "from . import order"),
        ("elsewhere.module", "import os"),
    ],
)
def test_a_planted_violation_is_caught(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("launcher.plan", "from __future__ import annotations\nimport json\nfrom launcher.errors import RunError"),
        ("launcher.strategies.fsdp", "def wrap():\n    from torch.distributed.fsdp import fully_shard"),
        ("launcher.train.work", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from launcher.run import run"),
        ("launcher.run", "from launcher import submit, training_words"),  # not launcher.train
        ("models.vit", "import torch\nfrom torch import nn\nfrom models.resnet import resnet8"),
        ("data.text", "import numpy\nimport pyarrow.parquet as pq"),
    ],
)
def test_what_the_floor_plan_allows_is_not_caught(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[module for module, _ in MODULES])
def test_a_file_fits_in_a_head_and_a_function_on_a_screen(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= FILE_LINES
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions if node.end_lineno}
    assert {name: lines for name, lines in long.items() if lines > FUNCTION_LINES} == {}


def test_python_files_outside_the_packages_are_tests_benchmarks_and_nothing_else() -> None:
    places = {place.name for place in REPO.iterdir() if place.is_dir() and place.name[0] != "." and any(place.rglob("*.py"))}
    assert places <= {*PACKAGES, "tests", "benchmarks", "slurm", "build"}
    assert list(REPO.glob("*.py")) == []
