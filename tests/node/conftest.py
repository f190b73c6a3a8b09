"""The run that nobody disturbs, for the tests that disturb one."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import TWO, finish, toy_words


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    done = finish(home, toy_words(home / "runs", *TWO))
    assert done.returncode == 0, done.stderr
    return home / "runs" / "toy" / "a"
