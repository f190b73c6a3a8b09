"""The floor plan of docs/design.md as a rule: which wing may import which, how long a file and a function may be.

Read from syntax trees, so that nothing is imported. `top` imports run when the module is imported; inner ones when a function is
called. A name under `if TYPE_CHECKING` is not there at run time and binds nobody.
"""

from __future__ import annotations

import ast
import re
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

HALL = {"script", "__init__", "__main__", "cli", "devices", "errors", "plan", "shell"}
QUICK = [f"launcher.verbs.{verb}" for verb in ("status", "why", "logs", "help", "cancel", "collect", "plot")]
"""Verbs that must not wait for Hydra."""
READS_CONFIGS = ["launcher.verbs.compare"]
"""Those that wait for a reader of YAML, and for numpy where there is something to test, and not before."""
LIGHT = ["launcher.train.worker", "launcher.train.prepare", "launcher.doctor.examine.__main__", "launcher.node.__main__"]
LIGHT += ["launcher.evaluation.__main__"]
"""Doors of processes that can say what went wrong before torch is there."""


@dataclass(frozen=True)
class Row:
    """A wing in the table of docs/design.md: what it may import of ours, of others, and of others within a function only."""

    ours: frozenset[str]
    top: frozenset[str]
    inner: frozenset[str]


def _plan() -> dict[str, Row]:
    lines = (REPO / "docs" / "design.md").read_text(encoding="utf-8").splitlines()
    rows = lines[lines.index("| wing | what is in it | imports of ours | of others |") + 2 :]
    plan: dict[str, Row] = {}
    for line in rows[: rows.index("")]:
        name, _, ours, others = (cell.strip(" `") for cell in line.strip("|").split("|"))
        words = [word for word in others.split() if word != "–"]
        inner = frozenset(word.removesuffix("()") for word in words if word.endswith("()"))
        plan[name] = Row(frozenset(ours.split()) - {"–"}, frozenset(words) - {f"{word}()" for word in inner}, inner)
    return plan


PLAN = _plan()


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


def wing_of(module: str) -> str:
    """The row of the table that a module, or a name in one, belongs to; empty where there is none."""
    short = module.removeprefix("launcher.")
    found = [row for row in PLAN if short == row or short.startswith(f"{row}.")]
    return max(found, key=len, default="launcher" if short in ("launcher", "PROJECT", "CONF", "__version__", "__init__") else "")


def violations(module: str, source: str) -> list[str]:
    """`module:line imports name`, for each import that `module` may not have."""
    found = [here for here in imports_of(source) if not here.name.startswith("__future__.") and _is_wrong(module, here)]
    return [f"{module}:{here.line} imports {here.name}" for here in found]


def _is_wrong(module: str, here: Import) -> bool:
    package = module.split(".")[0]
    if package == "models":
        return not _below(here.name, (*STDLIB, "torch", "safetensors", "models")) or _below(here.name, ("torch.distributed",))
    if package == "data":
        return here.name.startswith(".") or _below(here.name, ("launcher", "models", "torch.distributed", "accelerate"))
    wing = wing_of(module)
    if not wing:
        return True
    if here.name == "launcher":
        return here.name not in PLAN[wing].ours
    if here.name.startswith("launcher."):
        theirs = wing_of(here.name)
        return (
            _are_apart(module, here.name) if theirs == wing else not any(_below(here.name, (f"launcher.{name}",)) for name in _ours(wing))
        )
    row = PLAN[wing]
    return not _below(here.name, (*STDLIB, *row.top, *(() if here.top else row.inner)))


def _ours(wing: str) -> Iterator[str]:
    for name in PLAN[wing].ours:
        yield from ("PROJECT", "CONF", "__version__") if name == "launcher" else (name,)


def _are_apart(module: str, name: str) -> bool:
    """A verb knows no other verb but what several read words by, a strategy no other strategy but what all share that keep a replica or
    pieces, the folder of a cluster no other cluster's."""
    wing, *mine = module.split(".")[1:3]
    _, *other = name.split(".")[1:3]
    if wing == "clusters":
        return len(mine) == 1 and mine != other and all((REPO / "launcher" / wing / each[0]).is_dir() for each in (mine, other) if each)
    return wing in ("verbs", "strategies") and mine != other and name.split(".")[2] not in ("replicated", "sharded", "words", "asking")


def _below(name: str, parents: tuple[str, ...] | frozenset[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _modules() -> list[tuple[str, Path]]:
    found = []
    for package in PACKAGES:
        for path in sorted((REPO / package).rglob("*.py")):
            name = ".".join(path.relative_to(REPO).with_suffix("").parts)
            found.append((name.removesuffix(".__init__"), path))
    return found


MODULES = _modules()
IMPORTS = {module: imports_of(path.read_text(encoding="utf-8")) for module, path in MODULES}


def _loaded(name: str) -> Iterator[str]:
    """The modules of ours that an import runs: those on the way to it too."""
    parts = name.split(".")
    yield from (module for end in range(1, len(parts) + 1) if (module := ".".join(parts[:end])) in IMPORTS)


def reached(module: str, *, inner: bool, seen: set[str] | None = None) -> set[str]:
    """Every name that is imported on behalf of `module`, by whatever it imports; `inner`: in functions too."""
    seen = set() if seen is None else seen
    for here in (here for each in _loaded(module) for here in IMPORTS[each] if here.top or inner):
        if here.name not in seen:
            seen.add(here.name)
            reached(here.name, inner=inner, seen=seen)
    return seen


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[module for module, _ in MODULES])
def test_a_module_imports_what_its_floor_allows(module: str, path: Path) -> None:
    assert violations(module, path.read_text(encoding="utf-8")) == []


def test_the_plan_runs_downward_and_says_what_is() -> None:
    rows = [*PLAN]
    for number, (wing, row) in enumerate(PLAN.items()):
        assert {name.split(".")[0] for name in row.ours} <= {name.split(".")[0] for name in rows[number + 1 :]}, wing
        used = {wing_of(here.name) for module, _ in MODULES if wing_of(module) == wing for here in IMPORTS[module]} - {wing, ""}
        assert used == {wing_of(f"launcher.{name}") for name in row.ours}, wing
    assert {wing_of(module) for module, _ in MODULES if _below(module, ("launcher",))} == {*rows}
    assert {path.stem for path in (REPO / "launcher").glob("*.py")} == HALL


def test_no_module_imports_itself_by_way_of_others() -> None:
    ours = {module: {name for here in IMPORTS[module] for name in [*_loaded(here.name)][-1:]} - {module} for module, _ in MODULES}
    while leaves := [module for module, names in ours.items() if not names & ours.keys()]:
        for module in leaves:
            del ours[module]
    assert ours == {}


@pytest.mark.parametrize("verb", QUICK)
def test_a_quick_verb_reaches_no_hydra(verb: str) -> None:
    assert [name for name in reached(verb, inner=True) if _below(name, ("hydra", "omegaconf", "yaml", "launcher.compose", *HEAVY))] == []


@pytest.mark.parametrize("verb", READS_CONFIGS)
def test_a_verb_that_reads_configs_begins_without_and_reaches_no_hydra(verb: str) -> None:
    assert [name for name in reached(verb, inner=False) if _below(name, ("omegaconf", "yaml", "pyarrow", *HEAVY))] == []
    assert [name for name in reached(verb, inner=True) if _below(name, ("hydra", "launcher.compose", "torch", "accelerate"))] == []


@pytest.mark.parametrize("door", LIGHT)
def test_a_door_is_light(door: str) -> None:
    assert [name for name in reached(door, inner=False) if _below(name, ("hydra", *HEAVY))] == []


def test_what_is_reached_is_reached_by_whatever_way() -> None:
    assert {"hydra", "torch"} & {name.split(".")[0] for name in reached("launcher.verbs.run", inner=False)} == {"hydra"}
    assert "torch" in reached("launcher.train.worker", inner=True)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("launcher.errors", "import yaml"),
        ("launcher.plan", "from launcher.rundir import rundir"),
        ("launcher.plan", "import omegaconf"),
        ("launcher.shell", "from launcher.errors import ConfigError"),
        ("launcher.cli", "from launcher import train"),
        ("launcher.unheard_of", "import os"),
        ("launcher.rundir.rundir", "from launcher.clusters.submit import start"),
        ("launcher.rundir.sweep", "import omegaconf"),
        ("launcher.verdict.standing", "from launcher.clusters.slurm import scheduler"),
        ("launcher.clusters.submit", "def start():\n    import torch"),
        ("launcher.clusters.slurm.batch", "from launcher.clusters.local import choice"),
        ("launcher.clusters.slurm", "from launcher.start.launch import launch"),
        ("launcher.strategies.fsdp", "import torch"),
        ("launcher.strategies.fsdp", "class A:\n    from torch import nn"),
        ("launcher.strategies.fsdp", "try:\n    import accelerate\nexcept ImportError:\n    pass"),
        ("launcher.strategies.fsdp", "def wrap():\n    from launcher.train import loop"),
        ("launcher.strategies.fsdp", "from launcher.strategies.ddp import DDP"),
        ("launcher.verbs.run", "def late():\n    import numpy as np"),
        ("launcher.verbs.logs", "from launcher.verbs.status import status"),
        ("launcher.verbs.help", "import hydra"),
        ("launcher.start.launch", "from launcher.verbs import run"),
        ("launcher.compose.compose", "from launcher.train.work import work"),
        ("launcher.train.loop", "from launcher.compose.compose import compose"),
        ("launcher.train.loop", "from data import order"),
        ("launcher.train.tasks.text", "import hydra"),
        ("launcher.train.loop", "from . import step"),
        ("models.vit", "from launcher.errors import ConfigError"),
        ("models.vit", "import torch.distributed as dist"),
        ("models.vit", "from torch import distributed"),
        ("models.vit", "def f():\n    from torch.distributed import get_rank"),
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
        ("launcher.strategies.fsdp", "def wrap():\n    from accelerate.utils import DistributedType"),
        ("launcher.train.work", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from launcher.verbs.run import run"),
        ("launcher.verbs.run", "from launcher.start import launch, trained"),  # not launcher.train
        ("launcher.clusters.slurm.batch", "from launcher.clusters import submit\nfrom launcher.clusters.slurm import scheduler"),
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


KIND_OF_DEVICE = re.compile(r"cuda|xpu|\bmps\b")
ASKS_TORCH = ("launcher.devices", "launcher.train.device")
"""Where kinds of device are named: their words, and what torch has of one kind alone. `data` and `models` need neither."""
NO_KIND = {
    "launcher.clusters.gpus": ["usr/lib/wsl/lib/libcuda.so*", "usr/lib/wsl/drivers/nv*/libcuda.so*"],  # the driver's files
    "launcher.clusters.intel": ["+xpu"],  # in the name of torch's version
    "launcher.compose.check": ["max-autotune-no-cudagraphs"],  # a mode of torch.compile
    "launcher.verdict.signatures": ["cuda_oom", "no_cuda"],  # what words in logs are evidence of
}


def kinds_named(source: str) -> list[str]:
    """Identifiers and texts in which a kind of device is named; what is said of it in docstrings and comments is no code."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: list[str] = []
    for node in ast.walk(tree):
        if id(node) not in said:
            words = (getattr(node, name, None) for name in ("id", "attr", "arg", "name", "value", "module", "asname"))
            found += [word for word in words if isinstance(word, str) and KIND_OF_DEVICE.search(word)]
    return found


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[module for module, _ in MODULES])
def test_a_kind_of_device_is_named_in_one_file_of_each_half(module: str, path: Path) -> None:
    if module not in ASKS_TORCH:
        found = kinds_named(path.read_text(encoding="utf-8"))
        assert sorted({*found}) == sorted(NO_KIND.get(module, []))


@pytest.mark.parametrize(
    "source",
    ["torch.cuda.synchronize()", "x = 'cuda'", "f'cluster.device=cuda{x}'", "from torch import xpu", "def on_cuda(): ...", "f(cuda=1)"],
)
def test_a_kind_that_is_named_is_seen(source: str) -> None:
    assert len(kinds_named(source)) == 1
    assert kinds_named(f'"""{source}"""') == []


SCHEDULERS = {place.parent.name: place.parent for place in (REPO / "launcher" / "clusters").glob("*/traces.json")}
PROGRAMS = re.compile(r"\b(sbatch|srun|squeue|scancel|scontrol|sacct|sinfo)\b")
KEYS = ("launcher.compose", "launcher.config")
"""Where options of a cluster that are read as they were typed have a name: `cluster.sbatch`, `cluster.srun`."""


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_named_in_its_own_folder_alone(name: str) -> None:
    """Verbs, verdicts and nodes know the protocol (launcher/clusters/protocol.py), so that another one needs no edit of theirs."""
    others = [path for path in (REPO / "launcher").rglob("*.*") if SCHEDULERS[name] not in path.parents and path.suffix != ".pyc"]
    assert [str(path.relative_to(REPO)) for path in others if name in path.read_text(encoding="utf-8").lower()] == []


@pytest.mark.parametrize(("module", "path"), MODULES, ids=[module for module, _ in MODULES])
def test_its_programs_are_asked_by_its_own_folder_alone(module: str, path: Path) -> None:
    if not _below(module, ("launcher.clusters.slurm", *KEYS)):
        assert PROGRAMS.findall(path.read_text(encoding="utf-8")) == []


def test_python_files_outside_the_packages_are_tests_benchmarks_and_nothing_else() -> None:
    places = {place.name for place in REPO.iterdir() if place.is_dir() and place.name[0] != "." and any(place.rglob("*.py"))}
    assert places <= {*PACKAGES, "tests", "benchmarks", "slurm", "build"}
    assert list(REPO.glob("*.py")) == []
