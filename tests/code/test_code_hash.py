"""Code that is edited between stop and resume of a run on this machine is named, package by package."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import PROJECT, Answer

from launcher.clusters import attend
from launcher.code import code_hash
from launcher.compose import trusted
from launcher.compose.compose import compose
from launcher.compose.freeze import freeze
from launcher.errors import TrainingFailed
from launcher.rundir.rundir import create

Command = Callable[..., Answer]


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("SIZE = 1\n")


@pytest.mark.parametrize(
    ("edited", "named"),
    [
        ("mine/net.py", "mine"),
        ("mine/deep/down.py", "mine"),
        ("mine/new.py", "mine"),
        ("single.py", "single"),
        ("mine/deep/README.md", ""),
        ("mine/.venv/lib/other.py", ""),
        ("beside.py", ""),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_edit_of_ones_own_package_is_named(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str, named: str, elsewhere: bool
) -> None:
    """Also where `resume` is typed in another directory than the command was."""
    write(tmp_path, "mine/__init__.py", "mine/net.py", "mine/deep/down.py", "mine/.venv/pyvenv.cfg", "single.py", "beside.py")
    shutil.copytree(PROJECT / "conf", tmp_path / "more")
    toy = (PROJECT / "conf" / "exp" / "toy.yaml").read_text()
    (tmp_path / "more" / "exp" / "own.yaml").write_text(toy.replace("[toyproject]", "[toyproject, mine.net, single, nowhere]"))
    words = ("--config-dir", str(tmp_path / "more"), "+exp=own", f"runs_dir={tmp_path / 'runs'}", "cluster.device=cpu")
    frozen = []
    compose(list(words), lambda config, overrides: frozen.append(freeze(config, overrides)))
    here = create(Path(frozen[0].plan.run_dir))
    here.freeze(frozen[0].plan, frozen[0].config, frozen[0].script)
    trusted.note(["toyproject", "mine.net", "single", "nowhere"])

    def nothing(*_: object) -> None:
        raise TrainingFailed("not in this test")

    monkeypatch.setattr(attend, "attend", nothing)
    monkeypatch.chdir("/" if elsewhere else tmp_path)
    assert command("resume", str(here)).err == "launcher: not in this test\n"
    write(tmp_path, edited) if not (tmp_path / edited).exists() else (tmp_path / edited).write_text("SIZE = 2\n")
    warned = f"launcher: warning: the code of {named} has changed since this run was submitted; it continues with the code as it is now\n"
    assert command("resume", str(here)).err == (warned if named else "") + "launcher: not in this test\n"


@pytest.mark.parametrize("package", ["launcher", "models", "data"])
def test_so_is_one_of_the_projects(tmp_path: Path, package: str) -> None:
    write(tmp_path, *(f"{name}/{file}.py" for name in ("launcher", "models", "data") for file in ("__init__", "a")))
    before = code_hash.of_packages(tmp_path, ["toyproject"], PROJECT)
    assert [name for name, _ in before] == ["launcher", "models", "data", "toyproject"]
    assert code_hash.changed(before, code_hash.of_packages(tmp_path, ["toyproject"], PROJECT)) == []
    (tmp_path / package / "a.py").rename(tmp_path / package / "b.py")
    now = code_hash.of_packages(tmp_path, ["toyproject"], PROJECT)
    assert code_hash.changed(before, now) == [package]
    assert code_hash.of_all(before) != code_hash.of_all(now)
