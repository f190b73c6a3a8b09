"""Links stay within the copy, or what they lead to is copied; and names are what they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from made_projects import commit, copied, listed, run_git, source_of, write

from launcher.code import snapshot
from launcher.code.snapshot import find
from launcher.errors import ConfigError


def test_a_link_stays_a_link_only_where_it_leads_to_something_in_the_copy(project: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"file.py": "outside", "folder/in.py": "in", "folder/deep/more.py": "more"})
    (outside / "folder" / "link.py").symlink_to("in.py")
    (outside / "folder" / "out.py").symlink_to("../file.py")
    write(project, {"pkg/a.py": "a", "secret": "ignored"})
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
    run_git(project, "add", "--all")
    source = find(project, [])
    copy = copied(source, tmp_path)

    kept = {path.relative_to(copy).as_posix(): str(path.readlink()) for path in copy.rglob("*") if path.is_symlink()}
    stay = ("pkg/inside.py", "up.py", "folder", "pkg/round", "dangling", "loop", "circle", "top", "null")
    assert kept == {**{name: links[name] for name in stay}, "out/link.py": "in.py"}
    read = ("up.py", "out.py", "absolute.py", "by_name.py", "not_ignored.py", "out/in.py", "out/deep/more.py", "out/link.py", "out/out.py")
    texts = [(copy / name).read_text() for name in read]
    assert texts == ["a", "outside", "a", "a", "ignored", "in", "more", "in", "outside"]
    assert source_of(copy).digest() == source.digest()


def test_what_lies_behind_a_link_that_leads_out_counts_for_the_hash(project: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"file.py": "1"})
    (project / "out").symlink_to(outside)
    before = find(project, []).digest()
    write(outside, {"file.py": "2"})
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
    (project / "images").symlink_to(write(tmp_path / "images", {f"{n}.png": "" for n in range(21)}))
    with pytest.raises(ConfigError, match=r"images holds more than 20 files, .* the link to it, to \.gitignore"):
        find(project, [])


HOSTILE = ["a\nb.py", " ", "-rf", "$(x) `y` 'z' \"w\".py", "\\n", "é\u202e.py", "\x1b[31m", "x" * 255, "*", ":(top)", "a\tb"]


def test_hostile_names_are_copied_as_they_are(project: Path, tmp_path: Path) -> None:
    names = [f"odd/{name}/{name}" for name in HOSTILE]
    write(project, dict.fromkeys(names, "x"))
    if sys.platform == "linux":  # macOS has no such names
        names.append("odd/\udcff\udcfe.py")
        write(project, {names[-1]: "x"})
    commit(project)
    source = find(project, [])
    assert listed(source) == {".gitignore", *names}
    copy = copied(source, tmp_path)
    assert all((copy / name).read_text() == "x" for name in names)
    assert source_of(copy).digest() == source.digest()
