"""What lies where a command is typed is not run: files with the names of modules that Python, torchrun and the launcher import, each of
which leaves a mark when it is. Real processes, as a person starts them; a package of one's own is found in the same place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from helpers import PROJECT, REPO, Answer, environment_in, refused, run_dir

from launcher.config import targets
from launcher.start import torch_words
from launcher.trust import search_path

MODULES = (
    *("argparse", "queue", "random", "profile", "pathlib", "json", "socket", "subprocess", "shutil", "hashlib", "glob", "copy", "pdb"),
    *("readline", "numpy", "yaml", "rich", "tensorboard", "accelerate", "safetensors", "PIL", "pyarrow"),
)
MISSING = ("tensorflow", "triton", "torchvision")
"""Not installed with us, and looked for by what is."""
PACKAGES = (
    *("hydra", "hydra_plugins/planted", "omegaconf", "antlr4", "torch", "multiprocessing", "logging"),
    *("models", "data", "conf", "launcher", "launcher/train"),
)
OF_A_START = (
    *("sitecustomize", "usercustomize", "encodings", "typing", "types", "contextlib", "functools", "warnings", "threading"),
    *("keyword", "runpy", "pkgutil", "collections", "importlib"),
)
"""Imported by Python itself where it starts there with `-m`, or with a PYTHONPATH that means that directory: before there is a launcher."""
CONSOLE = (str(Path(sys.executable).with_name("launcher")),)
MODULE = (sys.executable, "-m", "launcher")
BY_PATH = (sys.executable, str(REPO / "launcher"))

Start = Callable[..., "subprocess.CompletedProcess[str]"]


def planted(folder: Path, *names: str) -> Path:
    """`folder` with such modules and packages. A mark is a file in `marks`, beside it."""
    (folder.parent / "marks").mkdir(parents=True, exist_ok=True)
    for name in names:
        place = folder / name / "__init__.py" if name in PACKAGES else folder / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"open({str(folder.parent / 'marks' / name.replace('/', '.'))!r}, 'w').close()\n", encoding="utf-8")
    return folder


def marks(folder: Path) -> list[str]:
    return sorted(place.name for place in (folder.parent / "marks").iterdir())


def mine(folder: Path) -> tuple[str, ...]:
    """A package of one's own in `folder`, which imports a module beside it; the words of a run of it."""
    shutil.copytree(PROJECT / "toyproject", folder / "mine")
    (folder / "mine" / "__init__.py").write_text("import beside\n", encoding="utf-8")
    (folder / "beside.py").touch()
    shutil.copytree(PROJECT / "conf", folder / "yamls")
    for place in (folder / "yamls").rglob("*.yaml"):
        place.write_text(place.read_text(encoding="utf-8").replace("toyproject", "mine"), encoding="utf-8")
    return ("--config-dir", str(folder / "yamls"), "+exp=toy", f"runs_dir={folder / 'runs'}", "cluster.device=cpu", "train.steps=1")


def start(argv: tuple[str, ...], folder: Path, environment: Mapping[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=folder, env={**environment, **more}, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything planted, and a directory in it."""
    folder = planted(tmp_path_factory.mktemp("neighbour") / "shared", *MODULES, *MISSING, *PACKAGES)
    (folder / "launcher" / "__init__.py").unlink()  # which `python -m launcher` runs, by its name
    (folder / "deep").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _nothing_ran(shared: Path, no_process_left: None) -> Iterator[None]:
    yield
    found = marks(shared)
    for name in found:
        (shared.parent / "marks" / name).unlink()
    assert found == []


def test_a_mark_is_left_where_there_is_no_guard(shared: Path, environment: dict[str, str]) -> None:
    start((sys.executable, "-c", "import numpy, hydra_plugins.planted"), shared, environment)
    assert marks(shared) == ["hydra_plugins.planted", "numpy"]
    for name in marks(shared):
        (shared.parent / "marks" / name).unlink()


@pytest.mark.parametrize("where", ["shared", "shared/deep"])
@pytest.mark.parametrize("program", [CONSOLE, MODULE, BY_PATH], ids=["console", "module", "path"])
def test_no_verb_imports_what_lies_where_it_is_typed(
    program: tuple[str, ...], where: str, shared: Path, environment: dict[str, str]
) -> None:
    words = ("plan", "+exp=cifar", "cluster.device=cpu") if where == "shared" else ("status",)
    done = start((*program, *words), shared.parent / where, environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [":{}:", ".:{}", "../shared:{}"])
def test_nor_where_pythonpath_means_that_directory(path: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """But for what Python itself imports when it starts, before there is a launcher: pathlib where something is installed editable."""
    folder = planted(tmp_path / "shared", *MODULES, *MISSING, *PACKAGES)
    (folder / "pathlib.py").unlink()
    shutil.rmtree(folder / "launcher")
    done = start((*CONSOLE, "run", "+exp=nothing"), folder, environment, PYTHONPATH=path.format(environment["PYTHONPATH"]))
    assert done.returncode == 2, done.stderr
    assert ("PYTHONPATH: ../shared is another directory in each" in done.stderr) == path.startswith("../")
    assert marks(folder) == []


def test_a_run_where_everything_is_planted_runs_ones_own_package_alone(tmp_path: Path, shared: Path, cache: Path) -> None:
    """Through the preparation of data, torchrun, its workers and the watchdog, and TensorBoard on it."""
    folder = planted(tmp_path / "shared", *MODULES, *PACKAGES, *OF_A_START)
    words = mine(folder)
    environment = {**environment_in(tmp_path, cache), "PYTHONPATH": ""}
    planted(folder / "runs", "numpy", "queue")
    done = start((*CONSOLE, *words), folder, environment)
    assert done.returncode == 0, done.stderr
    run = run_dir(done)
    assert marks(folder) == []
    planted(run, "numpy", "queue")
    shown = start((*CONSOLE, "tensorboard", str(run), "--version_tb"), shared, environment)
    assert shown.stdout.strip().startswith("2."), shown.stderr
    assert [marks(place) for place in (folder / "runs", run)] == [[], []]


def test_what_is_tried_before_a_run_is_not_tried_on_what_lies_here(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shared)
    monkeypatch.setattr(torch_words, "_TRY", "import numpy, queue")
    assert torch_words._said({name: value for name, value in os.environ.items() if name != "PYTHONPATH"}) is None


def test_a_queue_beside_the_launcher_itself_is_not_pythons(tmp_path: Path, environment: dict[str, str]) -> None:
    """In the checkout, where one works."""
    checkout = planted(tmp_path / "checkout", "queue", "random", "profile", "argparse", "logging", "multiprocessing")
    for name in ("launcher", "models", "data", "conf"):
        shutil.copytree(REPO / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**environment, "PYTHONPATH": str(checkout)}
    for words in (("launcher", "plan", "+exp=cifar", "cluster.device=cpu"), ("launcher.train.torchrun", "--help")):
        done = start((sys.executable, "-m", *words), checkout, environment)
        assert done.returncode == 0, done.stderr
    assert marks(checkout) == []


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
@pytest.mark.parametrize("place", [".", "mine", "mine.py"])
def test_ones_own_package_is_not_taken_from_where_others_write(
    mode: int, place: str, tmp_path: Path, command: Callable[..., Answer]
) -> None:
    words = mine(tmp_path)
    if place == "mine.py":
        (tmp_path / "mine").rename(tmp_path / "other")
        (tmp_path / "mine.py").touch()
    (tmp_path / place).chmod(mode)
    refused(command("plan", *words), 2, f"trust: mine is here, in {tmp_path}", "may write", "chmod go-w", "LAUNCHER_TRUST_DIRS=")


def test_ones_own_package_is_found_where_one_stands_and_nothing_is_left_of_that(
    tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = mine(tmp_path)
    before = [*sys.path], [*sys.meta_path], os.environ["PYTHONPATH"]
    assert command("plan", *words).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    targets.signature.cache_clear()
    targets.module_tree.cache_clear()
    refused(command("plan", *words), 2, "there is no module mine")
    assert before == ([*sys.path], [*sys.meta_path], os.environ["PYTHONPATH"])


@pytest.mark.parametrize(
    ("argv", "given", "ours"),
    [
        (["-m"], ["python", "-B", "-m", "launcher"], True),
        (["-m", "launcher"], ["python", "-m", "other", "launcher"], False),
        (["-m", "run"], ["python", "-um", "launcher.train.worker", "run"], True),
        (["-m", "run"], ["python", "-umlauncher.worker", "run"], True),
        (["/venv/bin/launcher"], ["python", "/venv/bin/launcher"], True),
        (["/home/me/train.py"], ["python", "train.py"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_only_a_process_of_our_own_has_its_path_settled_when_we_are_imported(
    argv: list[str], given: list[str], ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", given)
    assert search_path.is_of_this_program() == ours
