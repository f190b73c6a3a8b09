"""Packages of the user's own are copied beside the launcher."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from made_projects import TOY, commit, copied, listed, write

from launcher.code.snapshot import find


def test_a_trusted_package_is_laid_beside_the_launcher(project: Path, elsewhere: Path) -> None:
    assert listed(find(project, ["snap_toy.sub", "snap_toy", "snap_one"])) == {".gitignore", "snap_one.py", *TOY, "snap_toy/y.log"}
    assert "snap_toy" not in sys.modules


def test_a_trusted_package_leaves_out_what_its_own_repository_ignores(project: Path, elsewhere: Path) -> None:
    commit(write(elsewhere, {".gitignore": "*.log"}))
    assert listed(find(project, ["snap_toy"])) == {".gitignore", *TOY}


def test_a_trusted_package_that_its_repository_ignores_belongs_to_it_all_the_same(project: Path, elsewhere: Path) -> None:
    commit(write(elsewhere, {".gitignore": "snap_toy/"}))
    assert listed(find(project, ["snap_toy"])) == {".gitignore", *TOY, "snap_toy/y.log"}


def test_a_trusted_package_deep_in_the_project_is_importable_from_the_copy(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, {"tests/project/snap_deep/__init__.py": "word = 'deep'", "tests/project/snap_deep/a.log": ""})
    monkeypatch.syspath_prepend(str(project / "tests" / "project"))
    copy = copied(find(project, ["snap_deep"]), tmp_path)
    code = "import launcher, models, data, snap_deep; print(snap_deep.word, snap_deep.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["deep", str(copy / "snap_deep" / "__init__.py")]
    assert not (copy / "snap_deep" / "a.log").exists()


def test_a_trusted_package_at_the_top_of_the_project_is_there_already(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, {"snap_top/__init__.py": "", "snap_mod.py": "", "old/snap_old/__init__.py": "", "secret/__init__.py": ""})
    (project / "snap_top" / "link.py").symlink_to("../snap_mod.py")
    monkeypatch.syspath_prepend(str(project / "old"))
    monkeypatch.syspath_prepend(str(project))
    source = find(project, ["snap_top", "snap_mod"])
    assert source == find(project, [])
    assert dict(source.files)["snap_top/link.py"].is_symlink()
    ignored = {"snap_old/__init__.py", "secret/__init__.py"}
    assert listed(find(project, ["snap_top", "snap_old", "secret"])) == {*listed(source), *ignored}


def test_a_link_in_a_trusted_package_does_not_lead_out_of_the_copy(project: Path, elsewhere: Path) -> None:
    (elsewhere / "snap_toy" / "link.py").symlink_to("../no.py")
    (elsewhere / "snap_link.py").symlink_to("no.py")
    files = dict(find(project, ["snap_toy", "snap_link"]).files)
    assert files["snap_toy/link.py"] == files["snap_link.py"] == elsewhere / "no.py"


def test_a_trusted_package_wins_over_a_file_of_its_name(project: Path, elsewhere: Path, tmp_path: Path) -> None:
    write(project, {"snap_toy": "a script of that name"})
    copy = copied(find(project, ["snap_toy"]), tmp_path)
    assert (copy / "snap_toy" / "__init__.py").is_file()
    assert "snap_toy" in listed(find(project, []))
    assert "snap_nowhere" in listed(find(write(project, {"snap_nowhere": ""}), ["snap_nowhere"]))


@pytest.mark.usefixtures("elsewhere")
def test_what_is_installed_or_nowhere_or_no_name_stays_where_it_is(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(write(tmp_path / "site-packages", {"snap_installed/__init__.py": ""})))
    ours = ["launcher", "models.resnet"]
    no_names = ["snap_nowhere", "snap_none", "", "..", "/tmp", "snap_toy/sub", str(project)]
    monkeypatch.setitem(sys.modules, "snap_none", ModuleType("snap_none"))  # made by hand: it has no spec
    assert listed(find(project, ["snap_installed", "pytest", "json", "sys", "test", *ours, *no_names])) == {".gitignore"}


def test_what_an_editable_install_hooks_in_is_copied_too(project: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.remove(str(elsewhere))

    class Hook:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            init = elsewhere / "snap_toy" / "__init__.py"
            return importlib.util.spec_from_file_location(name, init) if name == "snap_toy" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Hook])
    assert listed(find(project, ["snap_toy"])) == {".gitignore", *TOY, "snap_toy/y.log"}


def test_every_part_of_a_namespace_package_is_copied(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("one", "two"):
        monkeypatch.syspath_prepend(str(write(tmp_path / part, {f"snap_space/{part}.py": ""})))
    assert listed(find(project, ["snap_space"])) == {".gitignore", "snap_space/one.py", "snap_space/two.py"}
