"""The copy is what was listed and no later edit; nothing is left of one that fails, and too much is refused before."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_projects import copied, listed, source_of, write

from launcher.code import code_size, snapshot
from launcher.code.snapshot import find
from launcher.errors import ConfigError, RunError


def test_a_copy_is_private_and_no_later_edit_reaches_it(project: Path, tmp_path: Path) -> None:
    write(project, {"run.sh": "1", "deep/er/x.py": "1"})
    (project / "run.sh").chmod(0o755)
    (project / "deep" / "er" / "x.py").chmod(0o444)
    saved = os.umask(0)
    try:
        copy = copied(find(project, []), tmp_path)
    finally:
        os.umask(saved)
    modes = {path.relative_to(copy).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in (copy, *copy.rglob("*"))}
    assert {name for name, mode in modes.items() if mode == 0o700} == {".", "run.sh", "deep", "deep/er", "launcher", "models", "data"}
    assert set(modes.values()) == {0o600, 0o700}
    before = source_of(copy).digest()
    assert before == find(project, []).digest()

    with (project / "run.sh").open("r+") as file:  # in place: a hard link would show it
        file.write("2")
    (project / "deep" / "er" / "x.py").unlink()
    assert source_of(copy).digest() == before


def test_a_file_that_is_gone_by_then_is_left_out(project: Path, tmp_path: Path) -> None:
    """An editor's spare, say: no reason to refuse a start."""
    before = find(project, []).digest()
    source = find(write(project, {"launcher/.last.py.swp": "", "launcher/last.py": ""}), [])
    (project / "launcher" / ".last.py.swp").unlink()
    (project / "launcher" / "last.py").unlink()
    assert source.digest() == before
    assert not list((copied(source, tmp_path) / "launcher").glob("*last*"))


def test_a_file_that_an_editor_puts_another_in_place_of_is_kept(project: Path, tmp_path: Path) -> None:
    source = find(write(project, {"launcher/last.py": "old"}), [])
    (project / "launcher" / "last.py").unlink()
    back = threading.Timer(0.05, (project / "launcher" / "last.py").write_text, ["new"])
    back.start()
    assert (copied(source, tmp_path) / "launcher" / "last.py").read_text() == "new"
    back.join()


def test_what_stands_in_the_way_of_a_copy_is_left_alone(project: Path, tmp_path: Path) -> None:
    write(tmp_path / "copy", {"precious": "x"})
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
    write(project, {f"models/{n}.py": "x" * 20_000 for n in range(10)})
    with pytest.raises(RunError, match=r"copy cannot be written \(No space left on device\); make room") as raised:
        find(project, []).copy_to(full_disk / "copy")
    assert "\n" not in str(raised.value)
    assert list(full_disk.iterdir()) == []


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
    write(project, {".gitignore": "data/raw\nweights.pt\nimages/\nold/\n"})
    assert listed(find(project, [])) == {".gitignore"}


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
    write(elsewhere, {"snap_toy/x.yaml": "x" * 1000})
    size = sum(path.stat().st_size for _, path in find(project, ["snap_toy"]).files)
    monkeypatch.setattr(code_size, "MOST_BYTES", size)
    find(project, ["snap_toy"])
    monkeypatch.setattr(code_size, "MOST_BYTES", size - 1)
    with pytest.raises(ConfigError, match=r"snap_toy/x\.yaml"):
        find(project, ["snap_toy"])
    find(project, [])
