"""Small projects in git or out of it, and what of them is listed and copied as the code of a run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from launcher.code.snapshot import Source

MINIMAL = {f"{package}/__init__.py": f"# {package}\n" for package in ("launcher", "models", "data")}
TOY = {"snap_toy/__init__.py", "snap_toy/sub/x.py", "snap_toy/x.yaml"}
"""A package of the user's own, in the fixture `elsewhere`."""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run_git(folder: Path, *words: str) -> None:
    argv = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false", *words]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(argv, check=True, env=clean, capture_output=True)


def commit(folder: Path) -> Path:
    run_git(folder, "init", "-q")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "-q", "--no-verify", "--allow-empty", "-m", "all")
    return folder


def listed(source: Source) -> set[str]:
    """What is listed beside the smallest project there is."""
    names = [name for name, _ in source.files]
    assert names == sorted(set(names))
    assert set(MINIMAL) <= set(names)
    return set(names) - set(MINIMAL)


def copied(source: Source, tmp_path: Path) -> Path:
    source.copy_to(tmp_path / "copy")
    return tmp_path / "copy"


def source_of(folder: Path) -> Source:
    """A copy, read as it lies there."""
    places = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return Source(tuple(sorted((path.relative_to(folder).as_posix(), path) for path in places)))
