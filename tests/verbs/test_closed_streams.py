"""A verb whose stdin, stdout or stderr was closed before it began says what it can, and writes into no file in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import REPO, environment_in


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("status", 0), ("nonsense", 2)])
def test_a_closed_stream_is_no_traceback(tmp_path: Path, closed: str, words: str, code: int) -> None:
    script = f'"$0" -m launcher {words} {closed}'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable], cwd=REPO, env=environment_in(tmp_path, tmp_path), capture_output=True, timeout=60
    )
    assert done.returncode == code, done
    assert b"Traceback" not in done.stderr
    if code and "2>&-" not in closed:
        assert done.stderr.count(b"\n") == 1


def test_the_next_file_that_is_opened_is_not_the_screen(tmp_path: Path) -> None:
    """Descriptor 1 would be the first that is free, and what a library prints there would lie in the file."""
    asked = "cli.main(['--help']); sys.stderr.write(str(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)))"
    code = f"import os, sys; from launcher import cli; {asked}"
    script = f'"$0" -c "{code}" "$1" >&-'
    words = ["bash", "-c", script, sys.executable, str(tmp_path / "file")]
    done = subprocess.run(words, cwd=REPO, env=environment_in(tmp_path, tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert int(done.stderr.split()[-1]) > 2
