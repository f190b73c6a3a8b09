"""The code of a run is what lay there when it was submitted: all of it, and nothing that git ignores."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from made_projects import MINIMAL, commit, copied, listed, run_git, write

from launcher.code import git
from launcher.code.snapshot import find
from launcher.errors import ConfigError


def test_what_git_lists_belongs_to_it_committed_or_not_and_what_it_ignores_does_not(project: Path) -> None:
    write(project, {"conf/new.yaml": "", "a.log": "", "old/x.py": "", "models/deep/er/new.py": "", "models/__pycache__/new.pyc": ""})
    assert listed(find(project, [])) == {".gitignore", "conf/new.yaml", "models/deep/er/new.py"}


def test_a_tracked_file_that_is_now_ignored_still_belongs_to_it(project: Path) -> None:
    write(project, {"kept.log": "x"})
    run_git(project, "add", "-f", "kept.log")
    assert "kept.log" in listed(find(project, []))


def test_the_content_is_what_lies_there_not_what_was_committed_or_staged(project: Path, tmp_path: Path) -> None:
    write(project, {"models/__init__.py": "staged"})
    run_git(project, "add", "--all")
    write(project, {"models/__init__.py": "edited"})
    assert (copied(find(project, []), tmp_path) / "models/__init__.py").read_text() == "edited"


def test_a_tracked_file_that_was_deleted_is_passed_over(project: Path) -> None:
    write(project, {"gone.py": "", "folder/gone.py": "", "became/file.py": ""})
    commit(project)
    (project / "gone.py").unlink()
    (project / "folder" / "gone.py").unlink()
    (project / "folder").rmdir()
    (project / "became" / "file.py").unlink()
    (project / "became").rmdir()
    write(project, {"became": "a file"})
    assert listed(find(project, [])) == {".gitignore", "became"}


def test_a_file_that_became_a_directory_is_listed_by_git_too(project: Path) -> None:
    write(project, {"thing": ""})
    commit(project)
    (project / "thing").unlink()
    write(project, {"thing/in.py": "", "thing/in.log": ""})
    assert listed(find(project, [])) == {".gitignore", "thing/in.py"}


@pytest.mark.parametrize("state", ["untracked", "no commit", "submodule", "submodule without a repository", "submodule that leads nowhere"])
def test_a_nested_repository_belongs_to_it_without_what_it_ignores(state: str, project: Path, tmp_path: Path) -> None:
    nested = write(project / "third" / "nested", {"lib.py": "", "sub/lib.py": "", ".gitignore": "*.big\n", "x.big": ""})
    run_git(nested, "init", "-q") if state == "no commit" else commit(nested)
    if state.startswith("submodule"):
        run_git(project, "add", "third/nested")
    wanted = {".gitignore", *(f"third/nested/{name}" for name in (".gitignore", "lib.py", "sub/lib.py"))}
    if state not in ("untracked", "no commit", "submodule"):
        shutil.rmtree(nested / ".git")
        wanted.add("third/nested/x.big")  # nobody is left to say that it is ignored
    if state == "submodule that leads nowhere":
        write(nested, {".git": f"gitdir: {tmp_path}/nowhere\n"})
    assert listed(find(project, [])) == wanted


def test_a_submodule_that_was_never_checked_out_is_empty(project: Path) -> None:
    (project / "nested").mkdir()
    commit(project / "nested")
    run_git(project, "add", "nested")
    shutil.rmtree(project / "nested" / ".git")
    assert listed(find(project, [])) == {".gitignore"}


def test_a_project_in_a_larger_repository_gets_what_lies_below_it(tmp_path: Path) -> None:
    project = write(tmp_path / "large" / "project", {**MINIMAL, "a.py": "", "b.tmp": ""})
    commit(write(tmp_path / "large", {"beside.py": "", ".gitignore": "*.tmp"}))
    assert listed(find(project, [])) == {"a.py"}


def test_a_larger_repository_that_ignores_the_project_has_no_say(tmp_path: Path) -> None:
    project = write(tmp_path / "home" / "project", {**MINIMAL, "notes.txt": "", "launcher/x.py": ""})
    commit(write(tmp_path / "home", {".gitignore": "*\n"}))
    run_git(tmp_path / "home", "add", "-f", "project/notes.txt")
    assert listed(find(project, [])) == {"launcher/x.py"}


def test_a_package_that_is_ignored_belongs_to_it_all_the_same(project: Path) -> None:
    write(project, {".gitignore": "/data/\n", "data/mine.py": ""})
    run_git(project, "rm", "-q", "--cached", "-r", "data")
    assert listed(find(project, [])) == {".gitignore", "data/mine.py"}


def test_without_git_it_is_the_three_packages_and_no_caches(plain: Path) -> None:
    write(plain, {"torch/__init__.py": "", "models/a.yaml": "", "models/__pycache__/a": "", "data/b.pyc": "", "data/.git/x": ""})
    assert listed(find(plain, [])) == {"models/a.yaml"}


def test_without_a_git_to_ask_a_repository_is_walked_and_that_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, {"extra.py": "", "venv/pyvenv.cfg": "", "venv/x.py": ""})
    monkeypatch.setenv("PATH", str(project))
    assert listed(find(project, [])) == {".gitignore", "extra.py"}
    assert "there is no git on this machine" in capsys.readouterr().err


def test_installed_it_is_the_three_packages_even_where_an_environment_lies_in_a_repository(tmp_path: Path) -> None:
    site = write(tmp_path / "work" / "venv" / "site-packages", {**MINIMAL, "torch/__init__.py": ""})
    commit(tmp_path / "work")
    assert listed(find(site, [])) == set()


def test_the_variables_of_a_git_hook_do_not_lead_elsewhere(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = commit(write(tmp_path / "other", {"other.py": ""}))
    for name, value in (("GIT_DIR", other / ".git"), ("GIT_WORK_TREE", other), ("GIT_INDEX_FILE", other / ".git" / "index")):
        monkeypatch.setenv(name, str(value))
    assert listed(find(project, [])) == {".gitignore"}


def test_a_git_that_hangs_is_a_refusal(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = write(tmp_path / "bin", {"git": "#!/bin/sh\nexec sleep 30\n"})
    (fake / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(git, "_SECONDS", 0.1)
    with pytest.raises(ConfigError, match=r"project: git took more than .* add large directories to \.gitignore"):
        find(project, [])


def test_sockets_and_pipes_are_passed_over(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, {"was.py": ""})
    commit(project)
    (project / "was.py").unlink()
    os.mkfifo(project / "was.py")
    monkeypatch.chdir(project / "models")  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as here:
        here.bind("socket")
        assert listed(find(project, [])) == {".gitignore"}
        shutil.rmtree(project / ".git")
        assert listed(find(project, [])) == set()


def test_a_link_to_a_directory_that_gitignore_names_with_a_slash_is_ignored(tmp_path: Path) -> None:
    """Git takes `sets/` for directories alone, so it lists a link to the data set on the scratch of a cluster."""
    scratch = write(tmp_path / "scratch", {f"{n}.bin": "" for n in range(30)})
    rules = {".gitignore": "sets/\n/out/\n!sub/kept/\n", "sub/.gitignore": "here/\nkept/\n", "sub/a.py": ""}
    project = write(tmp_path / "top" / "project", {**MINIMAL, **rules})
    write(tmp_path / "top", {".gitignore": "above/\n"})
    for link in ("sets", "out", "above", "sub/sets", "sub/out", "sub/here", "tracked"):
        (project / link).symlink_to(scratch)
    commit(tmp_path / "top")
    run_git(tmp_path / "top", "rm", "-q", "--cached", *(f"project/{link}" for link in ("sets", "out", "above", "sub/sets", "sub/here")))
    (project / ".gitignore").write_text(f"{rules['.gitignore']}tracked/\n")
    found = listed(find(project, []))
    assert found == {".gitignore", "sub/.gitignore", "sub/a.py", *(f"{name}/{n}.bin" for name in ("sub/out", "tracked") for n in range(30))}
