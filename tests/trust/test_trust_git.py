"""Other people's repositories: listing one runs nothing that it names, and reaches nothing outside of it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.code import git
from launcher.code.snapshot import find

FILES = dict.fromkeys((f"{name}/__init__.py" for name in ("launcher", "models", "data")), "")


def _git(folder: Path, *words: str) -> str:
    known = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", "-C", str(folder), *known, *words], check=True, capture_output=True, text=True, timeout=60).stdout


def _repository(folder: Path, *more: str) -> Path:
    for name in (*FILES, *more):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    _git(folder, "init", "-q")
    _git(folder, "add", "--all")
    _git(folder, "commit", "-q", "-m", "all")
    return folder


def _runs(folder: Path, canary: Path) -> str:
    """A program that shows it was run, and answers as a monitor of files does."""
    hook = folder / "hook"
    hook.write_text(f'#!/bin/sh\ntouch "{canary}"\nprintf "t\\0/\\0"\n')
    hook.chmod(0o755)
    return str(hook)


def _itself(project: Path, canary: Path) -> None:
    _git(project, "config", "core.fsmonitor", _runs(project / ".git", canary))


def _nested(project: Path, canary: Path) -> None:
    _itself(_repository(project / "third" / "nested"), canary)


def _included(project: Path, canary: Path) -> None:
    """By a file that its configuration includes."""
    _git(project, "config", "include.path", "more")
    (project / ".git" / "more").write_text(f"[core]\nfsmonitor = {_runs(project / '.git', canary)}\n")


def _of_the_worktree(project: Path, canary: Path) -> None:
    _git(project, "config", "extensions.worktreeConfig", "true")
    (project / ".git" / "config.worktree").write_text(f"[core]\nfsmonitor = {_runs(project / '.git', canary)}\n")


def _submodule(project: Path, canary: Path) -> None:
    other = _repository(project.parent / "other")
    _git(project, "submodule", "--quiet", "add", str(other), "sub")
    _git(project / "sub", "config", "core.fsmonitor", _runs(project / ".git", canary))


def _behind_a_link(project: Path, canary: Path) -> None:
    other = _repository(project.parent / "other")
    _itself(other, canary)
    (project / "lib").symlink_to(other)


def _looks_like_one(project: Path, canary: Path) -> None:
    """A directory of files that git takes for a repository as it stands in it, and that has a worktree."""
    place = project / "lib"
    shutil.copytree(_repository(project.parent / "other") / ".git", place)
    _git(project, "config", "--file", str(place / "config"), "core.bare", "false")
    _git(project, "config", "--file", str(place / "config"), "core.worktree", str(place))
    _git(project, "config", "--file", str(place / "config"), "core.fsmonitor", _runs(place, canary))
    shutil.rmtree(project / ".git")


def _sparse(project: Path, url: str, **config: str) -> None:
    """An index that lacks a tree, which git would fetch to fill it up."""
    for name in ("keep/x", "away/y"):
        (project / name).parent.mkdir()
        (project / name).write_text(name)
    _git(project, "add", "--all")
    _git(project, "commit", "-q", "-m", "more")
    tree = _git(project, "rev-parse", "HEAD:away").strip()
    _git(project, "sparse-checkout", "init", "--cone", "--sparse-index")
    _git(project, "sparse-checkout", "set", "keep", "launcher", "models", "data")
    (project / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    scheme = url.partition(":")[0]
    known = {"core.repositoryFormatVersion": "1", "extensions.partialClone": "origin", "remote.origin.promisor": "true"}
    known |= {"remote.origin.url": url, "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*", f"protocol.{scheme}.allow": "always"}
    for key, value in {**known, **config}.items():
        _git(project, "config", key, value)


def _fetches_by_a_command(project: Path, canary: Path) -> None:
    _sparse(project, f"ext::sh -c touch% {canary}")


def _fetches_from_a_directory(project: Path, canary: Path) -> None:
    other = _repository(project.parent / "other")
    _sparse(project, f"file://{other}", **{"remote.origin.uploadpack": f"touch {canary}; git-upload-pack"})


def _fetches_by_ssh(project: Path, canary: Path) -> None:
    _sparse(project, "ssh://127.0.0.1/x", **{"core.sshCommand": f"touch {canary}; false"})


def _fetches_by_an_alias(project: Path, canary: Path) -> None:
    named = {"remote.origin.vcs": "foo", "alias.remote-foo": f"!touch {canary}", "protocol.foo.allow": "always"}
    _sparse(project, "foo://x", **named)


DOORS = (_itself, _nested, _included, _of_the_worktree, _submodule, _behind_a_link, _looks_like_one)
FETCHES = (_fetches_by_a_command, _fetches_from_a_directory, _fetches_by_ssh, _fetches_by_an_alias)


@pytest.mark.parametrize("plant", [*DOORS, *FETCHES], ids=lambda plant: plant.__name__.strip("_"))
def test_listing_a_repository_runs_nothing_of_it(
    plant: Callable[[Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as git before 2.45 is, which knows no such variable
    monkeypatch.setattr(git, "_QUIET", {name: value for name, value in git._QUIET.items() if name != "GIT_NO_LAZY_FETCH"})
    project, canary = _repository(tmp_path / "project"), tmp_path / "canary"
    plant(project, canary)
    canary.unlink(missing_ok=True)
    find(project, [])
    git.names(project / "lib")
    assert not canary.exists(), "git ran what the configuration of a repository names"


@pytest.mark.parametrize("name", ["../x.py", "/tmp/xx.py", "a/../../x", "models/../../x.py", "launcher/.."])
def test_an_index_that_names_files_outside_is_not_believed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Git never writes such a name, and hands out what it reads. The copy of the code would have been written outside of the run."""
    (tmp_path / "x.py").write_text("not of this project")
    there = "b" * len(name)
    project = _repository(tmp_path / "project", there)
    index = project / ".git" / "index"
    entries = index.read_bytes()[:-20].replace(there.encode(), name.encode())
    index.write_bytes(entries + hashlib.sha1(entries).digest())
    assert {listed for listed, _ in find(project, []).files} == {*FILES, there}
    assert "outside of it" in capsys.readouterr().err
