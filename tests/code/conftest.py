"""Projects whose code is copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_projects import MINIMAL, TOY, commit, write


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The smallest project, and no git."""
    return write(tmp_path / "project", MINIMAL)


@pytest.fixture
def project(plain: Path) -> Path:
    """The same in a repository; `old/`, `*.log` and `/secret` are ignored."""
    write(plain, {".gitignore": "old/\n*.log\n/secret\n"})
    return commit(plain)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on sys.path with a package `snap_toy` and a module `snap_one`, in no repository."""
    folder = write(tmp_path / "elsewhere", dict.fromkeys((*TOY, "snap_toy/y.log", "snap_one.py", "no.py"), ""))
    monkeypatch.syspath_prepend(str(folder))
    return folder
