"""What is never copied with the code: environments, caches and runs, link or not, ignored or not; and repositories that git refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_projects import MINIMAL, commit, copied, listed, run_git, write
from test_rundir import frozen

from launcher.code import snapshot
from launcher.code.snapshot import find

IGNORED = ".gitignore"


@pytest.fixture(params=["by git", "walked"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """In a repository, or with everything in a package that nobody lists: both ways of listing leave out the same."""
    made = write(tmp_path / "project", {**MINIMAL, ".gitignore": ".venv/\n/runs/\n"})
    return commit(made) if request.param == "by git" else made


def _place(project: Path) -> Path:
    """Where a stranger's directory counts as the code."""
    return project if (project / ".git").exists() else project / "models"


def _is_unchanged(project: Path, before: snapshot.Source, tmp_path: Path) -> None:
    after = find(project, [])
    assert {name for name, _ in after.files} == {name for name, _ in before.files}
    assert after.digest() == before.digest()
    shutil.rmtree(tmp_path / "copy", ignore_errors=True)
    copied(after, tmp_path)


# ---------------------------------------------------------------- environments


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Those that programs make, with files enough in each to be refused as no code."""
    home = tmp_path_factory.mktemp("scratch")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "venv")], check=True)
    (home / "venv" / ".gitignore").unlink(missing_ok=True)  # which later versions write
    write(home / "conda", {"conda-meta/history": "", "bin/x.py": ""})
    write(home / "old", {"bin/activate": "", "lib/x.py": ""})
    write(home / "node_modules", {"x/index.js": ""})
    write(home / "tagged", {"CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n"})
    for place in home.iterdir():
        write(place, {f"lib/python3/site-packages/many/{n}.py": "" for n in range(30)})
    return {place.name: place for place in home.iterdir()}


@pytest.mark.parametrize("kind", ["venv", "conda", "old", "node_modules", "tagged"])
@pytest.mark.parametrize("link", [True, False])
def test_an_environment_is_no_code(
    kind: str, link: bool, project: Path, tmp_path: Path, environments: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_MOST_WALKED", 25)
    before = find(project, [])
    name = "node_modules" if kind == "node_modules" else ".venv" if kind == "venv" else "myenv"
    if link:
        (_place(project) / name).symlink_to(environments[kind])
    else:
        shutil.copytree(environments[kind], _place(project) / name, symlinks=True)
    _is_unchanged(project, before, tmp_path)
    (_place(project) / "again").symlink_to(name)  # a link to the link
    _is_unchanged(project, before, tmp_path)


def test_a_package_is_code_whatever_else_it_holds(project: Path) -> None:
    write(project, {"models/env/__init__.py": "", "models/env/multirun.yaml": "", "models/code/x.py": "", "models/plan.json": "{}"})
    assert listed(find(project, [])) >= {"models/env/__init__.py", "models/env/multirun.yaml", "models/code/x.py", "models/plan.json"}


# ---------------------------------------------------------------- runs


def _unfinished(place: Path) -> None:
    write(place / "toy" / "1", {"code/launcher/__init__.py": "", "code/x.py": ""})


def _being_written(place: Path) -> None:
    write(place / "toy" / "1", {".code.77/launcher/__init__.py": ""})


def _whole(place: Path) -> None:
    write(frozen(place / "toy" / "1").path, {"code/launcher/__init__.py": "", "metrics.jsonl": "x", "tb/x": ""})


def _damaged(place: Path) -> None:
    write(frozen(place / "toy" / "1").path, {"plan.json": "", "events.jsonl": ""})


def _sweep(place: Path) -> None:
    write(place / ".sweeps" / "a", {"sweep.json": "{}", "code/launcher/__init__.py": "", "tb/x": ""})


def _hydra(place: Path) -> None:
    write(place / "2026-01-01" / "12-00-00", {".hydra/config.yaml": "", "main.out": ""})
    write(place / "multi", {"multirun.yaml": "", "0/x": "", "0/.hydra/config.yaml": ""})


def _data(place: Path) -> None:
    write(place, {"toy-0123456789abcdef-v2/manifest.json": "{}", "toy-0123456789abcdef-v2.lock": "", "toy-hub-0123456789ab/x": ""})


MADE = [_whole, _damaged, _unfinished, _being_written, _sweep, _hydra, _data]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__.strip("_"))
def test_a_run_holds_no_other_runs(make, project: Path, tmp_path: Path) -> None:
    before = find(project, [])
    make(_place(project) / "experiments")
    _is_unchanged(project, before, tmp_path)
    make(tmp_path / "scratch")
    (_place(project) / "linked").symlink_to(tmp_path / "scratch")  # `/runs/` in .gitignore is no link of that name either
    _is_unchanged(project, before, tmp_path)


def test_what_jobs_and_charts_print_beside_the_code_is_left_out(project: Path, tmp_path: Path) -> None:
    """It grows: two submits of one code would have two hashes."""
    before = find(project, [])
    names = ("events.out.tfevents.1764115200.node1.7.0", "slurm-12.out", "slurm-12_3.out", "nohup.out")
    write(_place(project), {**dict.fromkeys(names, "x"), **{f"logs/{name}": "x" for name in names}})
    _is_unchanged(project, before, tmp_path)


def test_links_into_a_run_are_left_out(project: Path, tmp_path: Path) -> None:
    before = find(project, [])
    run = frozen(tmp_path / "scratch" / "toy" / "1").path
    write(run, {"checkpoints/step_1/model.pt": "x", "code/x.py": ""})
    for name, target in {"latest": run, "best.pt": run / "checkpoints/step_1/model.pt", "then": run / "code"}.items():
        (_place(project) / name).symlink_to(target)
    _is_unchanged(project, before, tmp_path)


def test_the_copy_in_a_run_is_a_project_of_its_own(tmp_path: Path) -> None:
    """As where a job submits another."""
    project = write(frozen(tmp_path / "runs" / "toy" / "1").path / "code", {**MINIMAL, "models/x.py": ""})
    (project / "models" / "link.py").symlink_to(project / "models" / "x.py")
    assert listed(find(project, [])) == {"models/x.py", "models/link.py"}


def test_a_run_in_a_trusted_package_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, elsewhere = commit(write(tmp_path / "project", MINIMAL)), tmp_path / "elsewhere"
    write(elsewhere, {"snap_runs/__init__.py": "", "snap_runs/x.py": ""})
    monkeypatch.syspath_prepend(str(elsewhere))
    before = find(project, ["snap_runs"])
    _whole(elsewhere / "snap_runs" / "runs")
    _sweep(elsewhere / "snap_runs")
    after = find(project, ["snap_runs"])
    assert after == before
    assert "snap_runs/x.py" in listed(after)


# ---------------------------------------------------------------- repositories that git refuses


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a repository that belongs to somebody else")
@pytest.mark.parametrize("inside", ["", "mono"])
def test_a_repository_that_belongs_to_somebody_else_loses_nothing(inside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top = tmp_path / "theirs"
    project = write(top / inside, {**MINIMAL, ".gitignore": "*.log\nbig/\n", "helpers/__init__.py": "", "x.log": "", "big/x": ""})
    ran = tmp_path / "ran"
    for repository in (top, write(project / "nested", {"lib.py": ""})):
        commit(repository)
        write(repository, {".git/hook": f'#!/bin/sh\ntouch {ran}\nprintf "t\\0/\\0"\n'})
        (repository / ".git" / "hook").chmod(0o755)
        run_git(repository, "config", "core.fsmonitor", str(repository / ".git" / "hook"))
    ours = find(project, [])
    assert not ran.exists(), "git ran what the configuration of a repository names"
    assert capsys.readouterr().err == ""
    for path in (top, *top.rglob("*")):
        os.lchown(path, 65534, 65534)
    theirs = find(project, [])
    assert listed(theirs) == {".gitignore", "helpers/__init__.py", "nested/lib.py"}
    assert theirs.digest() == ours.digest()
    assert not ran.exists()
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "dubious ownership" in line
    assert f"git config --global --add safe.directory {project}" in line


def test_a_damaged_repository_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = commit(write(tmp_path / "project", {**MINIMAL, "helpers.py": ""}))
    (project / ".git" / "index").write_bytes(b"torn")
    assert listed(find(project, [])) == {"helpers.py"}
    assert "warning: the code is copied without git" in capsys.readouterr().err
