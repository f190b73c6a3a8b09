"""The code of a run is what lay there when it was submitted: all of it, nothing that git ignores, and no later edit."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from launcher.code import code_size, git, snapshot
from launcher.code.snapshot import Source, find
from launcher.errors import ConfigError, RunError

MINIMAL = {f"{package}/__init__.py": f"# {package}\n" for package in ("launcher", "models", "data")}


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _git(folder: Path, *words: str) -> None:
    argv = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false", *words]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(argv, check=True, env=clean, capture_output=True)


def _commit(folder: Path) -> Path:
    _git(folder, "init", "-q")
    _git(folder, "add", "--all")
    _git(folder, "commit", "-q", "--no-verify", "--allow-empty", "-m", "all")
    return folder


def _names(source: Source) -> set[str]:
    """What is listed beside the smallest project there is."""
    names = [name for name, _ in source.files]
    assert names == sorted(set(names))
    assert set(MINIMAL) <= set(names)
    return set(names) - set(MINIMAL)


def _copy(source: Source, tmp_path: Path) -> Path:
    source.copy_to(tmp_path / "copy")
    return tmp_path / "copy"


def _source_of(folder: Path) -> Source:
    """A copy, read as it lies there."""
    places = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return Source(tuple(sorted((path.relative_to(folder).as_posix(), path) for path in places)))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The smallest project, and no git."""
    return _write(tmp_path / "project", MINIMAL)


@pytest.fixture
def project(plain: Path) -> Path:
    """The same in a repository; `old/`, `*.log` and `/secret` are ignored."""
    _write(plain, {".gitignore": "old/\n*.log\n/secret\n"})
    return _commit(plain)


# ---------------------------------------------------------------- what belongs to it


def test_what_git_lists_belongs_to_it_committed_or_not_and_what_it_ignores_does_not(project: Path) -> None:
    _write(project, {"conf/new.yaml": "", "a.log": "", "old/x.py": "", "models/deep/er/new.py": "", "models/__pycache__/new.pyc": ""})
    assert _names(find(project, [])) == {".gitignore", "conf/new.yaml", "models/deep/er/new.py"}


def test_a_tracked_file_that_is_now_ignored_still_belongs_to_it(project: Path) -> None:
    _write(project, {"kept.log": "x"})
    _git(project, "add", "-f", "kept.log")
    assert "kept.log" in _names(find(project, []))


def test_the_content_is_what_lies_there_not_what_was_committed_or_staged(project: Path, tmp_path: Path) -> None:
    _write(project, {"models/__init__.py": "staged"})
    _git(project, "add", "--all")
    _write(project, {"models/__init__.py": "edited"})
    assert (_copy(find(project, []), tmp_path) / "models/__init__.py").read_text() == "edited"


def test_a_tracked_file_that_was_deleted_is_passed_over(project: Path) -> None:
    _write(project, {"gone.py": "", "folder/gone.py": "", "became/file.py": ""})
    _commit(project)
    (project / "gone.py").unlink()
    (project / "folder" / "gone.py").unlink()
    (project / "folder").rmdir()
    (project / "became" / "file.py").unlink()
    (project / "became").rmdir()
    _write(project, {"became": "a file"})
    assert _names(find(project, [])) == {".gitignore", "became"}


def test_a_file_that_became_a_directory_is_listed_by_git_too(project: Path) -> None:
    _write(project, {"thing": ""})
    _commit(project)
    (project / "thing").unlink()
    _write(project, {"thing/in.py": "", "thing/in.log": ""})
    assert _names(find(project, [])) == {".gitignore", "thing/in.py"}


@pytest.mark.parametrize("state", ["untracked", "no commit", "submodule", "submodule without a repository", "submodule that leads nowhere"])
def test_a_nested_repository_belongs_to_it_without_what_it_ignores(state: str, project: Path, tmp_path: Path) -> None:
    nested = _write(project / "third" / "nested", {"lib.py": "", "sub/lib.py": "", ".gitignore": "*.big\n", "x.big": ""})
    _git(nested, "init", "-q") if state == "no commit" else _commit(nested)
    if state.startswith("submodule"):
        _git(project, "add", "third/nested")
    wanted = {".gitignore", *(f"third/nested/{name}" for name in (".gitignore", "lib.py", "sub/lib.py"))}
    if state not in ("untracked", "no commit", "submodule"):
        shutil.rmtree(nested / ".git")
        wanted.add("third/nested/x.big")  # nobody is left to say that it is ignored
    if state == "submodule that leads nowhere":
        _write(nested, {".git": f"gitdir: {tmp_path}/nowhere\n"})
    assert _names(find(project, [])) == wanted


def test_a_submodule_that_was_never_checked_out_is_empty(project: Path) -> None:
    (project / "nested").mkdir()
    _commit(project / "nested")
    _git(project, "add", "nested")
    shutil.rmtree(project / "nested" / ".git")
    assert _names(find(project, [])) == {".gitignore"}


def test_a_project_in_a_larger_repository_gets_what_lies_below_it(tmp_path: Path) -> None:
    project = _write(tmp_path / "large" / "project", {**MINIMAL, "a.py": "", "b.tmp": ""})
    _commit(_write(tmp_path / "large", {"beside.py": "", ".gitignore": "*.tmp"}))
    assert _names(find(project, [])) == {"a.py"}


def test_a_larger_repository_that_ignores_the_project_has_no_say(tmp_path: Path) -> None:
    project = _write(tmp_path / "home" / "project", {**MINIMAL, "notes.txt": "", "launcher/x.py": ""})
    _commit(_write(tmp_path / "home", {".gitignore": "*\n"}))
    _git(tmp_path / "home", "add", "-f", "project/notes.txt")
    assert _names(find(project, [])) == {"launcher/x.py"}


def test_a_package_that_is_ignored_belongs_to_it_all_the_same(project: Path) -> None:
    _write(project, {".gitignore": "/data/\n", "data/mine.py": ""})
    _git(project, "rm", "-q", "--cached", "-r", "data")
    assert _names(find(project, [])) == {".gitignore", "data/mine.py"}


def test_without_git_it_is_the_three_packages_and_no_caches(plain: Path) -> None:
    _write(plain, {"torch/__init__.py": "", "models/a.yaml": "", "models/__pycache__/a": "", "data/b.pyc": "", "data/.git/x": ""})
    assert _names(find(plain, [])) == {"models/a.yaml"}


def test_without_a_git_to_ask_a_repository_is_walked_and_that_is_said(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(project, {"extra.py": "", "venv/pyvenv.cfg": "", "venv/x.py": ""})
    monkeypatch.setenv("PATH", str(project))
    assert _names(find(project, [])) == {".gitignore", "extra.py"}
    assert "there is no git on this machine" in capsys.readouterr().err


def test_installed_it_is_the_three_packages_even_where_an_environment_lies_in_a_repository(tmp_path: Path) -> None:
    site = _write(tmp_path / "work" / "venv" / "site-packages", {**MINIMAL, "torch/__init__.py": ""})
    _commit(tmp_path / "work")
    assert _names(find(site, [])) == set()


def test_the_variables_of_a_git_hook_do_not_lead_elsewhere(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = _commit(_write(tmp_path / "other", {"other.py": ""}))
    for name, value in (("GIT_DIR", other / ".git"), ("GIT_WORK_TREE", other), ("GIT_INDEX_FILE", other / ".git" / "index")):
        monkeypatch.setenv(name, str(value))
    assert _names(find(project, [])) == {".gitignore"}


def test_a_git_that_hangs_is_a_refusal(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _write(tmp_path / "bin", {"git": "#!/bin/sh\nexec sleep 30\n"})
    (fake / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(git, "_SECONDS", 0.1)
    with pytest.raises(ConfigError, match=r"project: git took more than .* add large directories to \.gitignore"):
        find(project, [])


def test_sockets_and_pipes_are_passed_over(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(project, {"was.py": ""})
    _commit(project)
    (project / "was.py").unlink()
    os.mkfifo(project / "was.py")
    monkeypatch.chdir(project / "models")  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as here:
        here.bind("socket")
        assert _names(find(project, [])) == {".gitignore"}
        shutil.rmtree(project / ".git")
        assert _names(find(project, [])) == set()


# ---------------------------------------------------------------- packages of the user's own


TOY = {"snap_toy/__init__.py", "snap_toy/sub/x.py", "snap_toy/x.yaml"}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on sys.path with a package `snap_toy` and a module `snap_one`, in no repository."""
    folder = _write(tmp_path / "elsewhere", dict.fromkeys((*TOY, "snap_toy/y.log", "snap_one.py", "no.py"), ""))
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_trusted_package_is_laid_beside_the_launcher(project: Path, elsewhere: Path) -> None:
    assert _names(find(project, ["snap_toy.sub", "snap_toy", "snap_one"])) == {".gitignore", "snap_one.py", *TOY, "snap_toy/y.log"}
    assert "snap_toy" not in sys.modules


def test_a_trusted_package_leaves_out_what_its_own_repository_ignores(project: Path, elsewhere: Path) -> None:
    _commit(_write(elsewhere, {".gitignore": "*.log"}))
    assert _names(find(project, ["snap_toy"])) == {".gitignore", *TOY}


def test_a_trusted_package_that_its_repository_ignores_belongs_to_it_all_the_same(project: Path, elsewhere: Path) -> None:
    _commit(_write(elsewhere, {".gitignore": "snap_toy/"}))
    assert _names(find(project, ["snap_toy"])) == {".gitignore", *TOY, "snap_toy/y.log"}


def test_a_trusted_package_deep_in_the_project_is_importable_from_the_copy(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(project, {"tests/project/snap_deep/__init__.py": "word = 'deep'", "tests/project/snap_deep/a.log": ""})
    monkeypatch.syspath_prepend(str(project / "tests" / "project"))
    copy = _copy(find(project, ["snap_deep"]), tmp_path)
    code = "import launcher, models, data, snap_deep; print(snap_deep.word, snap_deep.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["deep", str(copy / "snap_deep" / "__init__.py")]
    assert not (copy / "snap_deep" / "a.log").exists()


def test_a_trusted_package_at_the_top_of_the_project_is_there_already(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(project, {"snap_top/__init__.py": "", "snap_mod.py": "", "old/snap_old/__init__.py": "", "secret/__init__.py": ""})
    (project / "snap_top" / "link.py").symlink_to("../snap_mod.py")
    monkeypatch.syspath_prepend(str(project / "old"))
    monkeypatch.syspath_prepend(str(project))
    source = find(project, ["snap_top", "snap_mod"])
    assert source == find(project, [])
    assert dict(source.files)["snap_top/link.py"].is_symlink()
    ignored = {"snap_old/__init__.py", "secret/__init__.py"}
    assert _names(find(project, ["snap_top", "snap_old", "secret"])) == {*_names(source), *ignored}


def test_a_link_in_a_trusted_package_does_not_lead_out_of_the_copy(project: Path, elsewhere: Path) -> None:
    (elsewhere / "snap_toy" / "link.py").symlink_to("../no.py")
    (elsewhere / "snap_link.py").symlink_to("no.py")
    files = dict(find(project, ["snap_toy", "snap_link"]).files)
    assert files["snap_toy/link.py"] == files["snap_link.py"] == elsewhere / "no.py"


def test_a_trusted_package_wins_over_a_file_of_its_name(project: Path, elsewhere: Path, tmp_path: Path) -> None:
    _write(project, {"snap_toy": "a script of that name"})
    copy = _copy(find(project, ["snap_toy"]), tmp_path)
    assert (copy / "snap_toy" / "__init__.py").is_file()
    assert "snap_toy" in _names(find(project, []))
    assert "snap_nowhere" in _names(find(_write(project, {"snap_nowhere": ""}), ["snap_nowhere"]))


@pytest.mark.usefixtures("elsewhere")
def test_what_is_installed_or_nowhere_or_no_name_stays_where_it_is(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(_write(tmp_path / "site-packages", {"snap_installed/__init__.py": ""})))
    ours = ["launcher", "models.resnet"]
    no_names = ["snap_nowhere", "snap_none", "", "..", "/tmp", "snap_toy/sub", str(project)]
    monkeypatch.setitem(sys.modules, "snap_none", ModuleType("snap_none"))  # made by hand: it has no spec
    assert _names(find(project, ["snap_installed", "pytest", "json", "sys", "test", *ours, *no_names])) == {".gitignore"}


def test_what_an_editable_install_hooks_in_is_copied_too(project: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path.remove(str(elsewhere))

    class Hook:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
            init = elsewhere / "snap_toy" / "__init__.py"
            return importlib.util.spec_from_file_location(name, init) if name == "snap_toy" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Hook])
    assert _names(find(project, ["snap_toy"])) == {".gitignore", *TOY, "snap_toy/y.log"}


def test_every_part_of_a_namespace_package_is_copied(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("one", "two"):
        monkeypatch.syspath_prepend(str(_write(tmp_path / part, {f"snap_space/{part}.py": ""})))
    assert _names(find(project, ["snap_space"])) == {".gitignore", "snap_space/one.py", "snap_space/two.py"}


# ---------------------------------------------------------------- links and names


def test_a_link_stays_a_link_only_where_it_leads_to_something_in_the_copy(project: Path, tmp_path: Path) -> None:
    outside = _write(tmp_path / "outside", {"file.py": "outside", "folder/in.py": "in", "folder/deep/more.py": "more"})
    (outside / "folder" / "link.py").symlink_to("in.py")
    (outside / "folder" / "out.py").symlink_to("../file.py")
    _write(project, {"pkg/a.py": "a", "secret": "ignored"})
    links = {
        "pkg/inside.py": "a.py",
        "up.py": "pkg/../pkg/a.py",
        "folder": "pkg",
        "pkg/round": ".",
        "dangling": "nowhere/at/all",
        "loop": "loop",
        "circle": str(project / "circle"),
        "top": ".",
        "null": "/dev/null",
        "out.py": "../outside/file.py",
        "absolute.py": str(project / "pkg" / "a.py"),
        "by_name.py": f"../{project.name}/pkg/a.py",
        "not_ignored.py": "secret",
        "out": str(outside / "folder"),
    }
    for name, target in links.items():
        (project / name).symlink_to(target)
    _git(project, "add", "--all")
    source = find(project, [])
    copy = _copy(source, tmp_path)

    kept = {path.relative_to(copy).as_posix(): os.readlink(path) for path in copy.rglob("*") if path.is_symlink()}  # noqa: PTH115
    stay = ("pkg/inside.py", "up.py", "folder", "pkg/round", "dangling", "loop", "circle", "top", "null")
    assert kept == {**{name: links[name] for name in stay}, "out/link.py": "in.py"}
    read = ("up.py", "out.py", "absolute.py", "by_name.py", "not_ignored.py", "out/in.py", "out/deep/more.py", "out/link.py", "out/out.py")
    texts = [(copy / name).read_text() for name in read]
    assert texts == ["a", "outside", "a", "a", "ignored", "in", "more", "in", "outside"]
    assert _source_of(copy).digest() == source.digest()


def test_what_lies_behind_a_link_that_leads_out_counts_for_the_hash(project: Path, tmp_path: Path) -> None:
    outside = _write(tmp_path / "outside", {"file.py": "1"})
    (project / "out").symlink_to(outside)
    before = find(project, []).digest()
    _write(outside, {"file.py": "2"})
    assert find(project, []).digest() != before


@pytest.mark.parametrize("target", ["/", "..", "../project"])
def test_a_link_around_the_project_is_refused(target: str, project: Path) -> None:
    (project / "around").symlink_to(target)
    with pytest.raises(ConfigError, match=r"project/around is a link to .*, around itself; add it to \.gitignore"):
        find(project, [])


def test_a_link_to_a_data_set_is_refused_before_it_is_walked_to_its_end(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_MOST_WALKED", 20)
    (project / "images").symlink_to(_write(tmp_path / "images", {f"{n}.png": "" for n in range(21)}))
    with pytest.raises(ConfigError, match=r"images holds more than 20 files, .* the link to it, to \.gitignore"):
        find(project, [])


HOSTILE = ["a\nb.py", " ", "-rf", "$(x) `y` 'z' \"w\".py", "\\n", "é\u202e.py", "\x1b[31m", "x" * 255, "*", ":(top)", "a\tb"]


def test_hostile_names_are_copied_as_they_are(project: Path, tmp_path: Path) -> None:
    names = [f"odd/{name}/{name}" for name in HOSTILE]
    _write(project, dict.fromkeys(names, "x"))
    if sys.platform == "linux":  # macOS has no such names
        names.append("odd/\udcff\udcfe.py")
        _write(project, {names[-1]: "x"})
    _commit(project)
    source = find(project, [])
    assert _names(source) == {".gitignore", *names}
    copy = _copy(source, tmp_path)
    assert all((copy / name).read_text() == "x" for name in names)
    assert _source_of(copy).digest() == source.digest()


# ---------------------------------------------------------------- the hash


def test_the_hash_is_that_of_names_executable_bits_and_contents(project: Path) -> None:
    _write(project, {"a.py": "1", "b.py": "2"})
    (project / "link.py").symlink_to("a.py")
    seen = [find(project, []).digest()]

    os.utime(project / "a.py", (time.time() - 1000, time.time() - 1000))
    (project / "a.py").chmod(0o640)
    _git(project, "add", "--all")
    assert find(project, []).digest() == seen[0]

    def differs() -> None:
        seen.append(find(project, []).digest())
        assert len(set(seen)) == len(seen)

    _write(project, {"a.py": "3"})
    differs()
    (project / "a.py").chmod(0o740)
    differs()
    (project / "b.py").rename(project / "c.py")
    differs()
    (project / "link.py").unlink()
    (project / "link.py").symlink_to("c.py")
    differs()
    _write(project, {"empty.py": ""})
    differs()


def test_the_hash_does_not_depend_on_where_the_project_is(tmp_path: Path) -> None:
    one, two = (_commit(_write(tmp_path / name, {**MINIMAL, "a.py": "1"})) for name in ("one", "two"))
    assert find(one, []).digest() == find(two, []).digest()


def test_where_a_name_ends_and_a_content_begins_is_part_of_the_hash(tmp_path: Path) -> None:
    one = _write(tmp_path / "one", {"a": "1", "b": "2"})
    two = _write(tmp_path / "two", {"a": "1b\0f\0" + "2"})
    assert _source_of(one).digest() != _source_of(two).digest()


def test_a_file_that_is_gone_by_then_is_left_out(project: Path, tmp_path: Path) -> None:
    """An editor's spare, say: no reason to refuse a start."""
    before = find(project, []).digest()
    source = find(_write(project, {"launcher/.last.py.swp": "", "launcher/last.py": ""}), [])
    (project / "launcher" / ".last.py.swp").unlink()
    (project / "launcher" / "last.py").unlink()
    assert source.digest() == before
    assert not list((_copy(source, tmp_path) / "launcher").glob("*last*"))


def test_a_file_that_an_editor_puts_another_in_place_of_is_kept(project: Path, tmp_path: Path) -> None:
    source = find(_write(project, {"launcher/last.py": "old"}), [])
    (project / "launcher" / "last.py").unlink()
    back = threading.Timer(0.05, (project / "launcher" / "last.py").write_text, ["new"])
    back.start()
    assert (_copy(source, tmp_path) / "launcher" / "last.py").read_text() == "new"
    back.join()


def test_a_link_to_a_directory_that_gitignore_names_with_a_slash_is_ignored(tmp_path: Path) -> None:
    """Git takes `sets/` for directories alone, so it lists a link to the data set on the scratch of a cluster."""
    scratch = _write(tmp_path / "scratch", {f"{n}.bin": "" for n in range(30)})
    rules = {".gitignore": "sets/\n/out/\n!sub/kept/\n", "sub/.gitignore": "here/\nkept/\n", "sub/a.py": ""}
    project = _write(tmp_path / "top" / "project", {**MINIMAL, **rules})
    _write(tmp_path / "top", {".gitignore": "above/\n"})
    for link in ("sets", "out", "above", "sub/sets", "sub/out", "sub/here", "tracked"):
        (project / link).symlink_to(scratch)
    _commit(tmp_path / "top")
    _git(tmp_path / "top", "rm", "-q", "--cached", *(f"project/{link}" for link in ("sets", "out", "above", "sub/sets", "sub/here")))
    (project / ".gitignore").write_text(f"{rules['.gitignore']}tracked/\n")
    found = _names(find(project, []))
    assert found == {".gitignore", "sub/.gitignore", "sub/a.py", *(f"{name}/{n}.bin" for name in ("sub/out", "tracked") for n in range(30))}


# ---------------------------------------------------------------- the copy


def test_a_copy_is_private_and_no_later_edit_reaches_it(project: Path, tmp_path: Path) -> None:
    _write(project, {"run.sh": "1", "deep/er/x.py": "1"})
    (project / "run.sh").chmod(0o755)
    (project / "deep" / "er" / "x.py").chmod(0o444)
    saved = os.umask(0)
    try:
        copy = _copy(find(project, []), tmp_path)
    finally:
        os.umask(saved)
    modes = {path.relative_to(copy).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in (copy, *copy.rglob("*"))}
    assert {name for name, mode in modes.items() if mode == 0o700} == {".", "run.sh", "deep", "deep/er", "launcher", "models", "data"}
    assert set(modes.values()) == {0o600, 0o700}
    before = _source_of(copy).digest()
    assert before == find(project, []).digest()

    with (project / "run.sh").open("r+") as file:  # in place: a hard link would show it
        file.write("2")
    (project / "deep" / "er" / "x.py").unlink()
    assert _source_of(copy).digest() == before


def test_what_stands_in_the_way_of_a_copy_is_left_alone(project: Path, tmp_path: Path) -> None:
    _write(tmp_path / "copy", {"precious": "x"})
    with pytest.raises(RunError, match=r"copy cannot be written \(.*\); make room or choose another runs_dir=") as raised:
        find(project, []).copy_to(tmp_path / "copy")
    assert "\n" not in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "project"}
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["precious"]


def test_a_copy_into_nowhere_is_one_line(project: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be written \(No such file or directory\)"):
        find(project, []).copy_to(tmp_path / "nowhere" / "copy")


def test_a_copy_that_is_interrupted_leaves_nothing(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = snapshot._read

    def interrupted(path: Path) -> tuple[bytes, bytes]:
        if path.parent.name == "models":
            assert list(tmp_path.glob(".copy.*/data/__init__.py"))  # it was under way, beside the place
            raise KeyboardInterrupt
        return read(path)

    source = find(project, [])
    monkeypatch.setattr(snapshot, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.copy_to(tmp_path / "copy")
    assert {path.name for path in tmp_path.iterdir()} == {"project"}


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(project: Path, full_disk: Path) -> None:
    _write(project, {f"models/{n}.py": "x" * 20_000 for n in range(10)})
    with pytest.raises(RunError, match=r"copy cannot be written \(No space left on device\); make room") as raised:
        find(project, []).copy_to(full_disk / "copy")
    assert "\n" not in str(raised.value)
    assert list(full_disk.iterdir()) == []


# ---------------------------------------------------------------- the cap


def _sparse(project: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        with (project / name).open("wb") as file:
            file.truncate(size * 2**20)


def test_too_much_is_refused_in_one_line_that_names_the_largest_and_what_to_type(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_read", None)  # the sizes are enough
    _sparse(project, {"data/raw/blob\n.bin": 40, "weights.pt": 500, "old/ignored.bin": 900, **{f"images/{n}/x.png": 1 for n in range(20)}})
    with pytest.raises(ConfigError) as raised:
        find(project, [])
    line = str(raised.value)
    assert "\n" not in line
    assert "has 560.0 MiB, and 64.0 MiB is the most" in line
    assert "the largest: weights.pt (500.0 MiB), 'data/raw/blob\\n.bin' (40.0 MiB), images/ (20.0 MiB); " in line
    assert ".gitignore" in line
    _write(project, {".gitignore": "data/raw\nweights.pt\nimages/\nold/\n"})
    assert _names(find(project, [])) == {".gitignore"}


@pytest.mark.parametrize(
    ("sizes", "largest"),
    [
        ({"data/a.bin": 30, "data/b.bin": 30, "data/c.bin": 30}, "data/a.bin (30.0 MiB), data/b.bin (30.0 MiB), data/c.bin (30.0 MiB);"),
        ({f"data/raw/{n}.bin": 10 for n in range(9)}, "the largest: data/raw/ (90.0 MiB);"),
        ({"a/b/c/d.bin": 70, "x.bin": 1}, "the largest: a/b/c/d.bin (70.0 MiB), x.bin (1.0 MiB);"),
        ({**{f"a/{n}": 10 for n in range(4)}, "b": 35, "c": 20, "d": 1}, "the largest: a/ (40.0 MiB), b (35.0 MiB), c (20.0 MiB);"),
    ],
)
def test_the_largest_are_named_where_they_are(sizes: dict[str, int], largest: str, project: Path) -> None:
    _sparse(project, sizes)
    with pytest.raises(ConfigError) as raised:
        find(project, [])
    assert largest in str(raised.value)


def test_the_cap_counts_to_the_byte_and_trusted_packages_too(project: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(elsewhere, {"snap_toy/x.yaml": "x" * 1000})
    size = sum(path.stat().st_size for _, path in find(project, ["snap_toy"]).files)
    monkeypatch.setattr(code_size, "MOST_BYTES", size)
    find(project, ["snap_toy"])
    monkeypatch.setattr(code_size, "MOST_BYTES", size - 1)
    with pytest.raises(ConfigError, match=r"snap_toy/x\.yaml"):
        find(project, ["snap_toy"])
    find(project, [])
